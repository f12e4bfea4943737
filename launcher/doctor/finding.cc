#include "launcher/doctor/finding.h"

#include <algorithm>

#include <fmt/format.h>

namespace sprocket::launcher {
namespace {

const char* mark_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::kGood:
      return "ok     ";
    case Verdict::kAdvice:
      return "advice ";
    case Verdict::kProblem:
      return "PROBLEM";
  }
  return "";
}

int64_t count_of(const std::vector<Finding>& findings, Verdict verdict) {
  return std::count_if(findings.begin(), findings.end(),
                       [&](const Finding& finding) { return finding.verdict == verdict; });
}

}  // namespace

bool any_problem(const std::vector<Finding>& findings) {
  return count_of(findings, Verdict::kProblem) > 0;
}

std::string format_findings(const std::vector<Finding>& findings) {
  size_t width = 0;
  for (const Finding& finding : findings) width = std::max(width, finding.subject.size());
  std::string text;
  for (const Finding& finding : findings) {
    text += fmt::format("{}  {:<{}}  {}\n", mark_of(finding.verdict), finding.subject, width,
                        finding.found);
    if (!finding.remedy.empty()) {
      text += fmt::format("{:{}}-> {}\n", "", 9 + width + 2, finding.remedy);
    }
  }
  const int64_t problems = count_of(findings, Verdict::kProblem);
  const int64_t advice = count_of(findings, Verdict::kAdvice);
  if (problems > 0) {
    text += fmt::format("\n{} of {} checks failed: jobs cannot run on this machine yet.\n",
                        problems, findings.size());
  } else {
    text += fmt::format("\nJobs can run on this machine ({} checks, {} with advice).\n",
                        findings.size(), advice);
  }
  return text;
}

}  // namespace sprocket::launcher

#include "launcher/doctor/rank_report.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace sprocket::launcher {
namespace {

using Json = nlohmann::json;

// Hosts that a line names.
constexpr size_t kNamedHosts = 6;

// "0-3, 6"
std::string spans(const std::vector<int>& numbers) {
  std::string text;
  for (size_t first = 0, last = 0; first < numbers.size(); first = last + 1) {
    last = first;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    if (!text.empty()) text += ", ";
    text += first == last ? std::to_string(numbers[first])
                          : fmt::format("{}-{}", numbers[first], numbers[last]);
  }
  return text;
}

// Findings that say the same, of several ranks.
struct Group {
  Finding finding;   // as the first of the ranks has it
  bool same = true;  // all of them found the same
  std::vector<int> ranks;
};

}  // namespace

std::string text_of(const RankReport& report) {
  Json json = {{"rank", report.rank},           {"host", report.host},
               {"program", report.program},     {"mpi", report.mpi},
               {"cores", report.cores},         {"shared_memory", report.shared_memory},
               {"copy_rate", report.copy_rate}, {"link_rate", report.link_rate},
               {"findings", Json::array()}};
  for (const Finding& finding : report.findings) {
    json["findings"].push_back({{"verdict", static_cast<int>(finding.verdict)},
                                {"subject", finding.subject},
                                {"found", finding.found},
                                {"remedy", finding.remedy}});
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

RankReport report_of(const std::string& text) {
  try {
    const Json json = Json::parse(text);
    RankReport report{json.at("rank"),      json.at("host"),      json.at("program"),
                      json.at("mpi"),       json.at("cores"),     json.at("shared_memory"),
                      json.at("copy_rate"), json.at("link_rate"), {}};
    for (const Json& finding : json.at("findings")) {
      report.findings.push_back({static_cast<Verdict>(finding.at("verdict").get<int>()),
                                 finding.at("subject"), finding.at("found"), finding.at("remedy")});
    }
    return report;
  } catch (const Json::exception& error) {
    throw InternalError(fmt::format("a rank's report does not parse: {}", error.what()));
  }
}

std::string names_of(const std::vector<int>& ranks, const std::vector<RankReport>& reports) {
  std::vector<std::pair<std::string, std::vector<int>>> hosts;
  for (const int rank : ranks) {
    const std::string& host = reports.at(rank).host;
    auto found = std::find_if(hosts.begin(), hosts.end(),
                              [&](const auto& entry) { return entry.first == host; });
    if (found == hosts.end()) found = hosts.insert(hosts.end(), {host, {}});
    found->second.push_back(rank);
  }
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < hosts.size() && i < kNamedHosts; ++i) {
    text += fmt::format("{}{} ({})", i == 0 ? "" : ", ", spans(hosts[i].second), hosts[i].first);
  }
  if (hosts.size() > kNamedHosts) {
    text += fmt::format(" and of {} more hosts", hosts.size() - kNamedHosts);
  }
  return text;
}

std::vector<Finding> merge_findings(const std::vector<RankReport>& reports) {
  std::vector<std::string> subjects;
  std::map<std::string, std::vector<Group>> groups;
  for (const RankReport& report : reports) {
    for (const Finding& finding : report.findings) {
      std::vector<Group>& of_subject = groups[finding.subject];
      if (of_subject.empty()) subjects.push_back(finding.subject);
      auto group = std::find_if(of_subject.begin(), of_subject.end(), [&](const Group& other) {
        return other.finding.verdict == finding.verdict && other.finding.remedy == finding.remedy;
      });
      if (group == of_subject.end()) group = of_subject.insert(of_subject.end(), {finding});
      group->same = group->same && group->finding.found == finding.found;
      group->ranks.push_back(report.rank);
    }
  }
  std::vector<Finding> merged;
  for (const std::string& subject : subjects) {
    for (Group& group : groups[subject]) {
      const bool all = group.ranks.size() == reports.size();
      if (!all) {
        group.finding.found += "; " + names_of(group.ranks, reports);
        if (!group.same) group.finding.found += ", the first of them";
      } else if (!group.same) {
        group.finding.found += fmt::format("; on rank {}, others alike", group.ranks.front());
      }
      merged.push_back(std::move(group.finding));
    }
  }
  return merged;
}

}  // namespace sprocket::launcher

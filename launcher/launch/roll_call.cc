#include "launcher/launch/roll_call.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <sstream>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "launcher/launch/child_process.h"
#include "launcher/launch/own_addresses.h"

namespace sprocket::launcher {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

// Of the shell on the other host; ssh's own is 255.
constexpr int kNoFolder = 101, kNoProgram = 102;
constexpr seconds kForAnAnswer{30};
constexpr milliseconds kRound{20};
constexpr milliseconds kFirstPause{1000}, kLongestPause{30'000};
// Agents at a time.
constexpr size_t kAtOnce = 64;

struct Question {
  std::string host;
  std::unique_ptr<ChildProcess> agent;
};

bool all_have_ended(const std::vector<Question>& questions) {
  return std::all_of(questions.begin(), questions.end(),
                     [](const Question& question) { return question.agent->ended().has_value(); });
}

std::vector<Absence> ask(const std::vector<std::string>& hosts, const StartPlan& plan,
                         const AskedToEnd& asked) {
  std::vector<Question> questions;
  for (const std::string& host : hosts) {
    questions.push_back({host, std::make_unique<ChildProcess>(question_to(host, plan), SIGTERM)});
  }
  const auto until = steady_clock::now() + kForAnAnswer;
  while (!all_have_ended(questions) && asked.times() == 0 && steady_clock::now() < until) {
    asked.pause(kRound);
  }
  std::vector<Absence> absences;
  for (const Question& question : questions) {
    const std::string why = reason_of_absence(question.agent->ended(), plan);
    if (!why.empty()) absences.push_back({question.host, why});
  }
  return absences;
}

std::vector<Absence> ask_all(const std::vector<std::string>& hosts, const StartPlan& plan,
                             const AskedToEnd& asked) {
  std::vector<Absence> absences;
  for (auto from = hosts.begin(); from != hosts.end() && asked.times() == 0;) {
    const auto to =
        from + static_cast<std::ptrdiff_t>(std::min<size_t>(kAtOnce, hosts.end() - from));
    for (Absence& absence : ask({from, to}, plan, asked)) absences.push_back(std::move(absence));
    from = to;
  }
  return absences;
}

}  // namespace

std::vector<std::string> hosts_of(const std::vector<Absence>& absences) {
  std::vector<std::string> hosts;
  for (const Absence& absence : absences) hosts.push_back(absence.host);
  return hosts;
}

std::string words_of(const std::vector<Absence>& absences) {
  std::string text;
  for (const auto& [host, why] : absences) {
    text += fmt::format("{}host {} {}", text.empty() ? "" : "; ", host, why);
  }
  return text;
}

std::vector<std::string> question_to(const std::string& host, const StartPlan& plan) {
  std::istringstream agent(plan.agent);
  std::vector<std::string> words;
  for (std::string word; agent >> word;) words.push_back(word);
  words.push_back(host);
  words.push_back(fmt::format("cd {} || exit {}; test -x {} || exit {}", shell_line({plan.folder}),
                              kNoFolder, shell_line({plan.program}), kNoProgram));
  return words;
}

std::string reason_of_absence(std::optional<int> status, const StartPlan& plan) {
  if (!status) {
    return fmt::format("has not answered for {} s by \"{}\"", kForAnAnswer.count(), plan.agent);
  }
  if (*status == 0) return "";
  if (*status == kNoFolder) return fmt::format("does not see the working folder {}", plan.folder);
  if (*status == kNoProgram) return fmt::format("has no program {}", plan.program);
  return fmt::format("cannot be reached by \"{}\" (exit code {})", plan.agent, *status);
}

bool is_this_host(const std::string& name) {
  char own[256] = {};
  gethostname(own, sizeof own - 1);
  const std::vector<std::string> addresses = own_addresses();
  return name == "localhost" || same_host(name, own) ||
         std::find(addresses.begin(), addresses.end(), name) != addresses.end();
}

std::vector<Absence> absent_hosts(const StartPlan& plan, seconds patience,
                                  const AskedToEnd& asked) {
  if (plan.agent.empty()) return {};
  std::vector<std::string> hosts;
  for (const HostSlots& host : hosts_for(plan.hosts, plan.ranks)) {
    if (!is_this_host(host.name)) hosts.push_back(host.name);
  }
  const auto until = steady_clock::now() + patience;
  auto pause = kFirstPause;
  for (;;) {
    std::vector<Absence> absences = ask_all(hosts, plan, asked);
    const auto left = std::chrono::ceil<milliseconds>(until - steady_clock::now());
    if (absences.empty() || asked.times() > 0 || left <= milliseconds(0)) return absences;
    if (pause == kFirstPause) {
      spdlog::warn("launch: waiting up to {} s: {}", patience.count(), words_of(absences));
    }
    asked.pause(std::min(pause, left));
    pause = std::min(2 * pause, kLongestPause);
    hosts = hosts_of(absences);
  }
}

}  // namespace sprocket::launcher

#include "launcher/launch/roll_call.h"

#include <algorithm>
#include <csignal>
#include <memory>
#include <sstream>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/host_name.h"
#include "base/log.h"
#include "launcher/launch/child_process.h"
#include "launcher/launch/own_addresses.h"

namespace sprocket::launcher {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

// Of the shell on the other host; ssh's own is 255.
constexpr int kNoFolder = 101, kNoProgram = 102, kCrowded = 103;
constexpr seconds kForAnAnswer{30};
constexpr milliseconds kRound{20};
constexpr milliseconds kFirstPause{1000}, kLongestPause{30'000};
// Agents at a time.
constexpr size_t kAtOnce = 64;

struct Question {
  HostSlots host;
  std::unique_ptr<ChildProcess> agent;
};

bool all_have_ended(const std::vector<Question>& questions) {
  return std::all_of(questions.begin(), questions.end(),
                     [](const Question& question) { return question.agent->ended().has_value(); });
}

// What the hosts say is added to `found`.
void ask(const std::vector<HostSlots>& hosts, const StartPlan& plan, const AskedToEnd& asked,
         RollCall& found) {
  std::vector<Question> questions;
  for (const HostSlots& host : hosts) {
    questions.push_back({host, std::make_unique<ChildProcess>(question_to(host, plan), SIGTERM)});
  }
  const auto until = steady_clock::now() + kForAnAnswer;
  while (!all_have_ended(questions) && asked.times() == 0 && steady_clock::now() < until) {
    asked.pause(kRound);
  }
  for (const Question& question : questions) {
    const std::optional<int> status = question.agent->ended();
    const std::string why = reason_of_absence(status, plan);
    if (!why.empty()) found.absences.push_back({question.host.name, why});
    if (means_crowded(status)) found.crowded.push_back(question.host.name);
  }
}

void ask_all(const std::vector<HostSlots>& hosts, const StartPlan& plan, const AskedToEnd& asked,
             RollCall& found) {
  found.absences.clear();
  for (auto from = hosts.begin(); from != hosts.end() && asked.times() == 0;) {
    const auto to =
        from + static_cast<std::ptrdiff_t>(std::min<size_t>(kAtOnce, hosts.end() - from));
    ask({from, to}, plan, asked, found);
    from = to;
  }
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

std::vector<std::string> question_to(const HostSlots& host, const StartPlan& plan) {
  std::istringstream agent(plan.agent);
  std::vector<std::string> words;
  for (std::string word; agent >> word;) words.push_back(word);
  const std::string script = fmt::format(
      "cd {} || exit {}; test -x {} || exit {}; test \"$(env -u OMP_NUM_THREADS nproc)\" -ge {} || "
      "exit {}",
      shell_line({plan.folder}), kNoFolder, shell_line({plan.program}), kNoProgram, host.slots,
      kCrowded);
  words.push_back(host.name);
  words.push_back(shell_line({"sh", "-c", script}));  // whatever the user's shell is
  return words;
}

std::string reason_of_absence(std::optional<int> status, const StartPlan& plan) {
  if (!status) {
    return fmt::format("has not answered for {} s by \"{}\"", kForAnAnswer.count(), plan.agent);
  }
  if (*status == 0 || means_crowded(status)) return "";
  if (*status == kNoFolder) return fmt::format("does not see the working folder {}", plan.folder);
  if (*status == kNoProgram) return fmt::format("has no program {}", plan.program);
  return fmt::format("cannot be reached by \"{}\" (exit code {})", plan.agent, *status);
}

bool means_crowded(std::optional<int> status) { return status == kCrowded; }

bool is_this_host(const std::string& name) {
  const std::vector<std::string> addresses = own_addresses();
  return name == "localhost" || same_host(name, own_host_name()) ||
         std::find(addresses.begin(), addresses.end(), name) != addresses.end();
}

RollCall call_hosts(const StartPlan& plan, seconds patience, const AskedToEnd& asked) {
  RollCall found;
  if (plan.agent.empty()) return found;
  std::vector<HostSlots> hosts;
  for (const HostSlots& host : hosts_for(plan.hosts, plan.ranks)) {
    if (!is_this_host(host.name)) {
      hosts.push_back(host);
    } else if (host.slots > plan.processors) {
      found.crowded.push_back(host.name);
    }
  }
  const auto until = steady_clock::now() + patience;
  auto pause = kFirstPause;
  for (;;) {
    ask_all(hosts, plan, asked, found);
    const auto left = std::chrono::ceil<milliseconds>(until - steady_clock::now());
    if (found.absences.empty() || asked.times() > 0 || left <= milliseconds(0)) return found;
    if (pause == kFirstPause) {
      spdlog::warn("launch: waiting up to {} s: {}", patience.count(), words_of(found.absences));
    }
    asked.pause(std::min(pause, left));
    pause = std::min(2 * pause, kLongestPause);
    const std::vector<std::string> absent = hosts_of(found.absences);
    std::erase_if(hosts, [&](const HostSlots& host) {
      return std::find(absent.begin(), absent.end(), host.name) == absent.end();
    });
  }
}

}  // namespace sprocket::launcher

#include "launcher/launch/attempt.h"

#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/host_name.h"
#include "base/log.h"
#include "launcher/launch/child_process.h"
#include "launcher/launch/own_addresses.h"
#include "launcher/launch/process_state.h"
#include "runtime/control/server.h"

namespace sprocket::launcher {
namespace {

namespace fs = std::filesystem;
using control::Command;
using control::Report;
using std::chrono::duration;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr auto kRound = milliseconds(50);
constexpr auto kHeartbeat = milliseconds(500);
// For the answers to a DUMP; for mpirun to end the other ranks when one is gone; for the starter to
// end after SIGTERM.
constexpr auto kForDumps = seconds(2);
constexpr auto kForTheStarter = seconds(10);
// Refused connections, of an attempt.
constexpr int64_t kMentioned = 10;

// Ranks on other hosts find the file in the working folder, which they see as they see the job's
// files; those of this host alone in a folder of this host.
std::string contact_folder(const StartPlan& plan) {
  if (!plan.hosts.empty() || plan.starter == Starter::kSrun) return plan.folder;
  return fs::temp_directory_path().string();
}

control::ServerOptions server_options(const SuperviseOptions& options) {
  control::ServerOptions server;
  server.ranks = options.start.ranks;
  server.port = static_cast<uint16_t>(options.port);
  server.heartbeat = kHeartbeat;
  const bool elsewhere = !options.start.hosts.empty() || options.start.starter == Starter::kSrun;
  if (!options.listen.empty()) {
    server.listen = options.listen;
  } else if (elsewhere) {
    server.listen = "0.0.0.0";
  }
  return server;
}

class Attempt {
 public:
  Attempt(const SuperviseOptions& options, const AttemptInput& input, const AskedToEnd& asked,
          StatusService& status)
      : options_(options),
        input_(input),
        asked_(asked),
        status_(status),
        secret_(control::Secret::random()),
        server_(server_options(options), secret_),
        watch_(options.start.ranks, options.limits) {
    facts_.own_host = own_host_name();
    facts_.started_before = input.started_before;
    facts_.processes_killed_for_memory = -processes_killed_for_memory();
  }

  AttemptResult run() {
    const control::ContactFile contact(contact_folder(options_.start), {secret_, addresses()});
    child_.emplace(start_command(options_.start, with_contact(input_.job, contact.path())),
                   options_.finish_alone ? 0 : SIGTERM);
    auto before = steady_clock::now();
    while (!child_->ended()) {
      listen(kRound);
      const auto now = steady_clock::now();
      watch_.tick(duration<double>(now - before).count());
      before = now;
      obey();
      look();
      status_.facts().stop_asked = facts_.stop_asked;
      status_.refresh(watch_);
    }
    // What the ranks said last may still be on its way.
    for (auto left = server_.take(kRound); !left.empty(); left = server_.take(kRound)) take(left);
    status_.publish(&watch_);
    facts_.status = *child_->ended();
    facts_.processes_killed_for_memory += processes_killed_for_memory();
    return {judge(facts_, watch_), watch_.any_joined(), watch_.newest_checkpoint(),
            failure_seen_.value_or(steady_clock::now())};
  }

 private:
  std::vector<control::Address> addresses() const {
    const std::string& listen = server_options(options_).listen;
    std::vector<control::Address> all;
    if (listen != "0.0.0.0") return {{listen, server_.port()}};
    for (const std::string& own : own_addresses()) all.push_back({own, server_.port()});
    return all;
  }

  void listen(milliseconds patience) { take(server_.take(patience)); }

  void take(const std::vector<Report>& reports) {
    for (const Report& report : reports) {
      watch_.take(report);
      if (report.kind == Report::Kind::kRefused) {
        say_refused(report.what);
      }
    }
    say_stragglers();
    say_first_step();
    say_missing();
  }

  void say_missing() {
    if (said_missing_) return;
    const std::vector<int> missing = watch_.missing_ranks();
    if (missing.empty()) return;
    said_missing_ = true;
    spdlog::warn(
        "launch: nothing has been heard of rank{} {}: they have not started, or cannot reach port "
        "{} of this host (--listen, --port); if the job makes progress it goes on",
        missing.size() == 1 ? "" : "s", fmt::join(missing, ", "), server_.port());
  }

  void say_stragglers() {
    for (const Return& back : watch_.take_returns()) {
      spdlog::warn("launch: {}", watch_.sentence(back));
    }
    for (const StragglerChange& change : watch_.stragglers().take_changes()) {
      if (change.begins) {
        spdlog::warn("launch: straggler: {}", watch_.sentence(change.straggler));
      } else {
        spdlog::info("launch: straggler no more: {}", watch_.name_of(change.straggler.rank));
      }
    }
  }

  // Somebody who looks for open ports does not fill the log.
  void say_refused(const std::string& why) {
    if (refused_ == kMentioned) spdlog::warn("launch: further refusals are not mentioned");
    if (refused_++ < kMentioned) spdlog::warn("launch: a connection was refused: {}", why);
  }

  // The kernel knows of ranks of this host. mpirun is about to end the others.
  void look_for_the_dead() {
    const std::optional<int> lost = watch_.first_lost();
    if (!lost || failure_seen_) return;
    const RankView& rank = watch_.ranks()[*lost];
    if (rank.host != facts_.own_host) return;
    if (process_state(rank.process) != ProcessState::kGone) return;
    spdlog::error("launch: {} is gone", watch_.name_of(*lost));
    failure_seen_ = steady_clock::now();
  }

  void say_first_step() {
    if (said_first_step_ || watch_.newest_step() < 0) return;
    said_first_step_ = true;
    if (input_.failure_seen == steady_clock::time_point()) return;
    spdlog::info("launch: first new step ({}) {:.1f} s after the failure was seen",
                 watch_.newest_step(),
                 duration<double>(steady_clock::now() - input_.failure_seen).count());
  }

  void obey() {
    if (asked_.times() >= 1 && !facts_.stop_asked) {
      facts_.stop_asked = true;
      server_.send(Command::STOP);
      spdlog::warn(
          "launch: asked to stop: the job finishes its step and saves; another signal ends it now");
    }
    if (asked_.times() >= 2 && !facts_.abort_asked) {
      facts_.abort_asked = true;
      end_now();
    }
  }

  void look() {
    if (ending_since_) {
      if (steady_clock::now() - *ending_since_ > kForTheStarter) child_->kill_group();
      return;
    }
    look_for_the_dead();
    if (watch_.is_hung()) {
      end_hung();
    } else if (failure_seen_ && steady_clock::now() - *failure_seen_ > kForTheStarter) {
      end_now();
    }
  }

  void end_hung() {
    server_.send(Command::DUMP);
    const auto until = steady_clock::now() + kForDumps;
    while (steady_clock::now() < until && !all_answered()) listen(kRound);
    facts_.hang = watch_.hang_sentence() + stopped_words();
    failure_seen_ = steady_clock::now();
    spdlog::error("launch: hang: {}", facts_.hang);
    write_report();
    end_now();
  }

  bool all_answered() const {
    for (const RankView& rank : watch_.ranks()) {
      if (!rank.dump) return false;
    }
    return true;
  }

  std::string stopped_words() const {
    std::string words;
    for (size_t i = 0; i < watch_.ranks().size(); ++i) {
      const RankView& rank = watch_.ranks()[i];
      if (!rank.joined || rank.host != facts_.own_host) continue;
      if (process_state(rank.process) != ProcessState::kStopped) continue;
      words += fmt::format("; the process of rank {} is stopped", i);
    }
    return words;
  }

  void write_report() const {
    const std::string path =
        (fs::path(options_.start.folder) / fmt::format("sprocket_hang_{}.txt", getpid())).string();
    std::ofstream file(path);
    file << facts_.hang << "\n\n" << watch_.hang_report();
    file.close();
    if (file) {
      spdlog::error("launch: the last operations of all ranks are in {}", path);
    } else {
      spdlog::error("launch: {} could not be written", path);
    }
  }

  // mpirun passes it on, gives the ranks a second, and kills them.
  void end_now() {
    child_->signal(SIGTERM);
    ending_since_ = steady_clock::now();
  }

  const SuperviseOptions& options_;
  const AttemptInput& input_;
  const AskedToEnd& asked_;
  StatusService& status_;
  const control::Secret secret_;
  control::Server server_;
  JobWatch watch_;
  AttemptFacts facts_;
  std::optional<ChildProcess> child_;
  std::optional<steady_clock::time_point> failure_seen_, ending_since_;
  bool said_first_step_ = false;
  bool said_missing_ = false;
  int64_t refused_ = 0;
};

}  // namespace

AttemptResult run_attempt(const SuperviseOptions& options, const AttemptInput& input,
                          const AskedToEnd& asked, StatusService& status) {
  return Attempt(options, input, asked, status).run();
}

}  // namespace sprocket::launcher

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include <fmt/format.h>

#include "base/error.h"
#include "base/host_name.h"
#include "launcher/command.h"
#include "launcher/launch/asked_to_end.h"
#include "launcher/status/endpoint_file.h"
#include "launcher/status/status_client.h"
#include "launcher/status/status_json.h"
#include "launcher/status/status_text.h"
#include "runtime/control/private_file.h"

namespace sprocket::launcher {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kPatience{5};
constexpr int kBetweenLooksMs = 1000;
constexpr size_t kMaxTokenBytes = 4096;

struct StatusFlags {
  std::string folder = ".";
  std::string url;
  std::string token_file;
  bool watch = false;
  bool json = false;
};

struct Seen {
  std::string json;  // one line
  JobStatus status;
};

Seen look(const StatusFlags& flags) {
  std::string url = flags.url, token;
  if (url.empty()) {
    const Endpoint endpoint = read_endpoint(flags.folder, own_host_name());
    url = endpoint.url;
    token = endpoint.token;
  } else if (!flags.token_file.empty()) {
    token = control::read_private_file(flags.token_file, kMaxTokenBytes,
                                       "the file that `sprocket launch --http` has named");
    token = token.substr(0, token.find('\n'));
  }
  const std::string text = ask_status(url, token, kPatience);
  return {text, status_of_json(text, url)};
}

size_t terminal_width() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

// What was on the terminal before is there again afterwards.
class Screen {
 public:
  Screen() { fmt::print("\033[?1049h\033[?25l"); }
  ~Screen() {
    fmt::print("\033[?25h\033[?1049l");
    std::fflush(stdout);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  // From the top, each line erased to its end, then everything below.
  void draw(const std::string& text) {
    std::string drawn = "\033[H";
    for (const char c : text) {
      if (c == '\n') drawn += "\033[K";
      drawn += c;
    }
    fmt::print("{}\033[J", drawn);
    std::fflush(stdout);
  }
};

bool same_news(const JobStatus& a, const JobStatus& b) {
  return a.state == b.state && a.step == b.step && a.restarts == b.restarts &&
         a.checkpoint_step == b.checkpoint_step && a.straggler == b.straggler;
}

// Of a job that answered before: nobody answers any more. A supervisor that ends takes its file
// away; what one that was killed has left is an error.
bool has_ended(const StatusFlags& flags) {
  return !flags.url.empty() || !fs::exists(fs::path(flags.folder) / kEndpointName);
}

ExitCode watch(const StatusFlags& flags) {
  Seen seen = look(flags);
  const AskedToEnd asked;
  bool ended = false;
  {
    std::optional<Screen> screen;
    if (!flags.json && isatty(STDOUT_FILENO) == 1) screen.emplace();
    std::optional<JobStatus> told;
    while (asked.times() == 0 && !ended) {
      if (screen) {
        screen->draw(status_table(seen.status, terminal_width()));
      } else if (flags.json) {
        fmt::print("{}", seen.json);
      } else if (!told || !same_news(*told, seen.status)) {
        fmt::print("{}\n", status_line(seen.status));
        told = seen.status;
      }
      std::fflush(stdout);
      poll(nullptr, 0, kBetweenLooksMs);  // a signal ends it
      try {
        if (asked.times() == 0) seen = look(flags);
      } catch (const InputError&) {
        if (!has_ended(flags)) throw;
        ended = true;
      }
    }
  }
  if (flags.json) return ExitCode::kOk;
  if (isatty(STDOUT_FILENO) == 1) fmt::print("{}", status_table(seen.status, terminal_width()));
  if (ended) fmt::print("the supervisor has ended\n");
  return ExitCode::kOk;
}

ExitCode show(const StatusFlags& flags) {
  if (flags.watch) return watch(flags);
  const Seen seen = look(flags);
  const bool terminal = isatty(STDOUT_FILENO) == 1;
  fmt::print("{}",
             flags.json ? seen.json : status_table(seen.status, terminal ? terminal_width() : 0));
  return ExitCode::kOk;
}

}  // namespace

void add_status_command(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "status",
      "Shows what a job under `sprocket launch` is doing: steps, loss, speed, and every rank.\n"
      "The job is found by its run's folder; docs/operations.md explains the table.",
      "sprocket status [FOLDER] [flags]",
      "\nExamples:\n"
      "  sprocket status runs/quickstart\n"
      "  sprocket status runs/quickstart --watch\n"
      "  sprocket status --url http://127.0.0.1:8080 --json\n" +
          exit_codes_text(
              {ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig, ExitCode::kInput}));
  auto flags = std::make_shared<StatusFlags>();
  CLI::Option* const folder =
      command
          .add_option("folder", flags->folder,
                      "The run's folder (output.directory); the working folder by default.")
          ->option_text("FOLDER");
  CLI::Option* const url =
      command
          .add_option("--url", flags->url,
                      "Instead of a folder: where `sprocket launch --http` answers.")
          ->option_text("URL")
          ->excludes(folder);
  command
      .add_option("--token-file", flags->token_file,
                  "With --url: the file with the token that `sprocket launch` has named.")
      ->option_text("FILE")
      ->needs(url);
  command.add_flag("--watch", flags->watch,
                   "Looks again every second until the job ends: the table on a terminal, "
                   "otherwise a line for each new step.");
  command.add_flag("--json", flags->json, "Prints the status as JSON, one line a look.");
  command.callback([flags, &action] { action = [flags] { return show(*flags); }; });
}

}  // namespace sprocket::launcher

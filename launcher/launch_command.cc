#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>

#include "base/error.h"
#include "launcher/command.h"
#include "launcher/command_line_error.h"
#include "launcher/host_flags.h"
#include "launcher/launch/supervisor.h"

namespace sprocket::launcher {
namespace {

namespace fs = std::filesystem;

struct LaunchFlags {
  int ranks = 0;
  HostFlags hosts;
  int max_restarts = 3;
  int drop_host_after = 2;
  int wait_for_hosts = 300;
  std::vector<std::string> limits;
  std::string if_abandoned = "stop";
  std::string binding = "none";
  std::string listen;
  int port = 0;
  std::vector<std::string> exported;
  int http_port = 0;  // 0: none was given
  std::string http_listen = "127.0.0.1";
  bool print = false;
  bool slurm = false;
  std::vector<std::string> job;
};

// The environment says it, as of other variables of Slurm and mpirun.
bool inside_slurm() { return std::getenv("SLURM_JOB_ID") != nullptr; }

int usable_processors() {
  cpu_set_t usable;
  CPU_ZERO(&usable);
  return sched_getaffinity(0, sizeof usable, &usable) == 0 ? CPU_COUNT(&usable) : 1;
}

SectionLimits parse_limits(const std::vector<std::string>& texts) {
  SectionLimits limits;
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    const std::string name = text.substr(0, equals);
    double seconds = 0;
    bool legal = false;
    if (equals != std::string::npos) {
      const char* const end = text.data() + text.size();
      const auto [rest, error] = std::from_chars(text.data() + equals + 1, end, seconds);
      legal = error == std::errc() && rest == end && seconds > 0;
    }
    bool known = name == "silence";
    if (known) limits.silence = seconds;
    for (int i = 0; i < control::kSections; ++i) {
      const auto section = static_cast<control::Section>(i);
      if (name != control::name_of(section)) continue;
      known = true;
      limits[section] = seconds;
    }
    if (!legal || !known) {
      throw ConfigError(fmt::format(
          "--limit {}: expected SECTION=SECONDS; sections: init, step, validation, checkpoint, "
          "sample, end, teacher; or silence=SECONDS",
          text));
    }
  }
  return limits;
}

// What a rank would say of its command line, said once and before anything runs.
void check_job(const std::vector<std::string>& job) {
  const std::string& name = job.front();
  if (name != "train" && name != "distill" && name != "sample" && name != "profile") {
    throw ConfigError(fmt::format("launch: {}: expected train, distill, sample or profile", name));
  }
  if (name == "profile" && job.size() > 1 && !job[1].starts_with("-")) {
    throw ConfigError(fmt::format("launch: profile {} runs on no ranks", job[1]));
  }
  Action unused;
  const std::unique_ptr<CLI::App> app = make_command_line(unused);
  try {
    app->parse(std::vector<std::string>(job.rbegin(), job.rend()));
  } catch (const CLI::Success&) {  // --help
  } catch (const CLI::ParseError& error) {
    throw ConfigError(describe(*app, error));
  }
}

// Variables that ranks on other hosts need to find the same programs and libraries.
std::vector<std::string> exported_names(const LaunchFlags& flags) {
  std::vector<std::string> names;
  for (const char* name : {"PATH", "LD_LIBRARY_PATH"}) {
    if (std::getenv(name) != nullptr) names.emplace_back(name);
  }
  for (const std::string& name : flags.exported) {
    if (std::getenv(name.c_str()) == nullptr) {
      throw ConfigError(fmt::format("--export {}: there is no such variable", name));
    }
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

SuperviseOptions options_of(const LaunchFlags& flags) {
  SuperviseOptions options;
  StartPlan& start = options.start;
  start.ranks = flags.ranks;
  start.hosts = hosts_of(flags.hosts);
  if (start.hosts.empty() && inside_slurm()) start.starter = Starter::kSrun;
  // Inside an allocation mpirun reaches its hosts by Slurm.
  if (!start.hosts.empty() && !inside_slurm()) start.agent = flags.hosts.agent;
  start.processors = usable_processors();
  start.binding = flags.binding;
  start.exported = exported_names(flags);
  start.folder = fs::current_path().string();
  start.program = fs::read_symlink("/proc/self/exe").string();
  check_start_plan(start);
  options.job = flags.job;
  options.restarts = flags.job.front() == "train" || flags.job.front() == "distill";
  options.max_restarts = flags.max_restarts;
  options.drop_host_after = flags.drop_host_after;
  options.wait_for_hosts = flags.wait_for_hosts;
  options.limits = parse_limits(flags.limits);
  options.finish_alone = flags.if_abandoned == "finish";
  options.listen = flags.listen;
  options.port = flags.port;
  if (flags.http_port > 0) options.status.port = static_cast<uint16_t>(flags.http_port);
  options.status.listen = flags.http_listen;
  return options;
}

std::vector<std::string> launch_words(const LaunchFlags& flags, const StartPlan& start) {
  std::vector<std::string> words = {start.program,    "launch",
                                    "--np",           std::to_string(flags.ranks),
                                    "--max-restarts", std::to_string(flags.max_restarts)};
  for (const std::string& limit : flags.limits) words.insert(words.end(), {"--limit", limit});
  if (flags.port != 0) words.insert(words.end(), {"--port", std::to_string(flags.port)});
  if (!flags.listen.empty()) words.insert(words.end(), {"--listen", flags.listen});
  if (flags.http_port > 0) {
    words.insert(words.end(),
                 {"--http", std::to_string(flags.http_port), "--http-listen", flags.http_listen});
  }
  words.insert(words.end(), {"--if-abandoned", flags.if_abandoned});
  words.push_back("--");
  // Slurm may start the script again, and so may a person, when the time was over.
  const bool continues = (flags.job.front() == "train" || flags.job.front() == "distill") &&
                         resume_of(flags.job, "").empty();
  const std::vector<std::string> job = continues ? with_resume(flags.job, "latest") : flags.job;
  words.insert(words.end(), job.begin(), job.end());
  return words;
}

void print(const LaunchFlags& flags, SuperviseOptions options) {
  if (flags.slurm) {
    if (!options.start.hosts.empty()) {
      throw ConfigError(
          "--slurm: Slurm chooses the hosts; expected neither --hosts nor --hostfile");
    }
    fmt::print("{}", sbatch_script(options.start, "sprocket-" + flags.job.front(),
                                   launch_words(flags, options.start)));
  } else {
    fmt::print("{}\n", shell_line(start_command(options.start, options.job)));
  }
}

ExitCode launch(const LaunchFlags& flags) {
  check_job(flags.job);
  const SuperviseOptions options = options_of(flags);
  if (flags.print) {
    print(flags, options);
    return ExitCode::kOk;
  }
  configure_logging(LogLevel::kNormal, 0, 1);
  if (is_oversubscribed(options.start)) {
    spdlog::warn("launch: {} ranks share {} processors: a rank that waits yields to the others",
                 options.start.ranks, options.start.processors);
  }
  return supervise(options);
}

void add_flags(CLI::App& command, LaunchFlags& flags) {
  command.add_option("--np", flags.ranks, "Ranks. Required.")
      ->option_text("N")
      ->required()
      ->check(CLI::Range(1, 1 << 20));
  add_host_flags(command, flags.hosts,
                 "Hosts and how many ranks each takes, as a:8,b:8; without, this host, or Slurm's "
                 "allocation. Those behind what --np needs are spare.");
  command
      .add_option("--max-restarts", flags.max_restarts,
                  "Restarts in a row without a new checkpoint in between. 3.")
      ->option_text("K")
      ->check(CLI::Range(0, 1'000'000));
  command
      .add_option("--drop-host-after", flags.drop_host_after,
                  "A host of --hosts or --hostfile that is the cause of so many failures without a "
                  "new checkpoint in between is dropped, if spare hosts or a lower "
                  "data-parallel degree allow it. 2; 0: never.")
      ->option_text("K")
      ->check(CLI::Range(0, 1'000'000));
  command
      .add_option("--wait-for-hosts", flags.wait_for_hosts,
                  "Seconds that a restart waits for hosts that do not answer. 300.")
      ->option_text("S")
      ->check(CLI::Range(0, 1'000'000));
  command
      .add_option(
          "--limit", flags.limits,
          "Seconds without progress after which a section counts as hung: init (1800), "
          "step (600), validation, checkpoint, sample (1800), teacher, end (600); silence (60): of "
          "a host that is not heard at all. May be given several times.")
      ->option_text("SECTION=S")
      ->expected(1)
      ->allow_extra_args(false)  // or it would swallow the -- behind it
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command
      .add_option("--if-abandoned", flags.if_abandoned,
                  "What ranks do when the supervisor is killed: stop (the default) or finish.")
      ->option_text("stop|finish")
      ->check(CLI::IsMember({"stop", "finish"}));
  command
      .add_option("--bind", flags.binding,
                  "What mpirun binds a rank to: none (the default: the ranks of a host divide its "
                  "processors), core, socket or numa.")
      ->option_text("WHAT")
      ->check(CLI::IsMember({"none", "core", "socket", "numa"}));
  command
      .add_option("--export", flags.exported,
                  "A variable that ranks on other hosts get, beside PATH and LD_LIBRARY_PATH. May "
                  "be given several times.")
      ->option_text("NAME")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command
      .add_option("--listen", flags.listen,
                  "The address at which ranks report: by default the loopback's, with other hosts "
                  "all of this host.")
      ->option_text("ADDRESS");
  command.add_option("--port", flags.port, "Its port; 0 (the default): any that is free.")
      ->option_text("PORT")
      ->check(CLI::Range(0, 65535));
  CLI::Option* const http =
      command
          .add_option("--http", flags.http_port,
                      "Serves a status page, /status.json, /metrics for Prometheus and /healthz at "
                      "this port.")
          ->option_text("PORT")
          ->check(CLI::Range(1, 65535));
  command
      .add_option("--http-listen", flags.http_listen,
                  "At this address; the loopback's by default. At any other, whoever asks must "
                  "show a token, and a file is named that holds it.")
      ->option_text("ADDRESS")
      ->needs(http);
  CLI::Option* const print = command.add_flag(
      "--print", flags.print, "Prints the command of mpirun or srun, runs nothing.");
  command.add_flag("--slurm", flags.slurm, "With --print: a script for sbatch instead.")
      ->needs(print);
  command.add_option("job", flags.job, "The job's command: train, distill, sample or profile.")
      ->option_text("-- COMMAND...")
      ->required();
}

}  // namespace

void add_launch_command(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "launch",
      "Runs a job under a supervisor, which starts it again from its newest checkpoint.\n"
      "A rank that dies or hangs is named; docs/operations.md says what is done when.",
      "sprocket launch --np N [flags] -- train|distill|sample|profile [its flags]",
      "\nExamples:\n"
      "  sprocket launch --np 2 -- train --config configs/quickstart.txtpb\n"
      "  sprocket launch --np 16 --hosts a:8,b:8 -- train --config job.txtpb\n"
      "  sprocket launch --np 2 --print -- train --config configs/quickstart.txtpb\n" +
          exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig, ExitCode::kInput,
                           ExitCode::kOutput, ExitCode::kComm, ExitCode::kCuda,
                           ExitCode::kNonFinite, ExitCode::kInterrupted, ExitCode::kAborted}));
  auto flags = std::make_shared<LaunchFlags>();
  add_flags(command, *flags);
  command.callback([flags, &action] { action = [flags] { return launch(*flags); }; });
}

}  // namespace sprocket::launcher

#include <filesystem>
#include <memory>
#include <optional>

#include <fmt/format.h>

#include "base/error.h"
#include "launcher/command.h"
#include "launcher/profile_files.h"
#include "launcher/session.h"
#include "launcher/terminal.h"
#include "runtime/jobs/distill_job.h"
#include "runtime/jobs/sample_job.h"
#include "runtime/jobs/train_job.h"
#include "runtime/profile/merge.h"
#include "runtime/profile/report_text.h"
#include "runtime/recording/profile_window.h"

namespace sprocket::launcher {
namespace {

namespace fs = std::filesystem;

struct ProfileFlags {
  std::string config;
  std::vector<std::string> sets;
  std::string output, cluster;
  std::string resume = "none";
  std::string kind = "train";
  int64_t steps = 20, warmup = 5;
  bool verbose = false;
  std::string contact;
};

struct ReportFlags {
  std::string folder, cluster;
};

// Of this rank.
struct RankResources {
  int threads = 1;
  at::Device device = at::kCPU;
  int64_t memory = 0;  // bytes that it may use
};

config::Purpose purpose_of(const std::string& kind) {
  if (kind == "sample") return config::Purpose::kSample;
  return kind == "distill" ? config::Purpose::kDistill : config::Purpose::kTrain;
}

std::string json_in(const std::string& folder) {
  return (fs::path(folder) / "profile.json").string();
}

void predict_and_print(const std::string& folder, const std::string& cluster,
                       profile::Report report) {
  if (!cluster.empty()) add_prediction(cluster, json_in(folder), report);
  runtime::write_report(report, folder, json_in(folder));
  fmt::print("{}\n  {}/profile.json, report.html, trace.json, events\n",
             profile::report_text(report), folder);
}

ExitCode profile_training(const ProfileFlags& flags, const config::Job& job, const Session& session,
                          std::unique_ptr<comm::Communicator> world, const RankResources& resources,
                          const runtime::ProfileOnly& only) {
  runtime::TrainOptions options;
  options.resume = flags.resume;
  options.threads = resources.threads;
  options.device = resources.device;
  options.memory = resources.memory;
  options.print_report = false;
  options.profile_only = only;
  const JobStop stop(session.supervised());
  options.stop = stop.flag();
  options.pulse = session.pulse();
  return flags.kind == "distill"
             ? runtime::run_distillation(job, std::move(world), options).exit_code
             : runtime::run_training(job, std::move(world), options).exit_code;
}

void profile_sampling(const ProfileFlags& flags, const config::Job& job, const Session& session,
                      std::unique_ptr<comm::Communicator> world, const RankResources& resources,
                      const runtime::ProfileOnly& only) {
  runtime::SampleOptions options;
  options.random_weights = flags.resume == "none";
  options.checkpoint = flags.resume == "latest" ? "" : flags.resume;
  options.threads = resources.threads;
  options.device = resources.device;
  options.profile_only = only;
  options.pulse = session.pulse();
  runtime::run_sampling(job, std::move(world), options);
}

ExitCode profile_job(const ProfileFlags& flags, const Session& session) {
  const bool samples = flags.kind == "sample";
  config::Job job;
  std::string folder = flags.output;
  session.run_on_all([&] {
    config::LoadOptions options;
    options.purpose = purpose_of(flags.kind);
    options.world = session.size();
    job = config::load_job(flags.config, flags.sets, options).job;
    if (folder.empty()) folder = job.output().directory() + "_profile";
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) throw OutputError(fmt::format("{}: cannot be created: {}", folder, error.message()));
  });
  if (session.pulse()) session.pulse()->writes_to(folder);
  Timeline timeline;
  std::unique_ptr<comm::Communicator> world = session.make_world(job.parallel(), &timeline);
  const int threads = resolve_threads(job.compute(), *world);
  const parallel::TensorDevice device = take_device(job.compute(), *world);
  const RankResources resources = {threads, device.device(),
                                   resolve_memory(job.compute(), device, *world)};
  const runtime::ProfileOnly only = {flags.steps, flags.warmup, folder};
  ExitCode code = ExitCode::kOk;
  if (samples) {
    profile_sampling(flags, job, session, std::move(world), resources, only);
  } else {
    code = profile_training(flags, job, session, std::move(world), resources, only);
  }
  session.run_on_all([&] {
    if (session.first()) {
      predict_and_print(folder, flags.cluster, profile::read_report(json_in(folder)));
    }
  });
  return code;
}

// A run has its profile.json beside the folder, sprocket profile in it.
void keep_what_events_lack(const fs::path& folder, profile::Report& report) {
  for (const fs::path& former : {folder / "profile.json", folder.parent_path() / "profile.json"}) {
    if (!fs::exists(former)) continue;
    try {
      const profile::Report known = profile::read_report(former.string());
      if (known.job != report.job || known.window.first_step != report.window.first_step) continue;
      report.remote_kv = known.remote_kv;
      report.curves = known.curves;
      return;
    } catch (const InputError&) {
      // It is about to be replaced.
    }
  }
}

ExitCode report_again(const ReportFlags& flags) {
  const fs::path folder = flags.folder;
  const fs::path events = fs::exists(folder / "events") ? folder / "events" : folder;
  profile::Report report =
      profile::merge_events(events.string(), {(folder / "trace.json").string()});
  keep_what_events_lack(folder, report);
  predict_and_print(flags.folder, flags.cluster, std::move(report));
  return ExitCode::kOk;
}

void add_cluster_flag(CLI::App& command, std::string& cluster) {
  command
      .add_option("--cluster", cluster,
                  "A cluster description (docs/plan.md): predictions beside what was measured, "
                  "links' shares, and what another mesh is predicted to save.")
      ->option_text("FILE");
}

void add_report_command(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "report",
      "Makes the report again from what the ranks recorded, or from what is left of it.\n"
      "Ranks and steps that are missing are named.",
      "sprocket profile report FOLDER [flags]",
      "\nExamples:\n"
      "  sprocket profile report runs/quickstart/profile\n" +
          exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig, ExitCode::kInput,
                           ExitCode::kOutput}));
  auto flags = std::make_shared<ReportFlags>();
  command
      .add_option("folder", flags->folder,
                  "The profile's folder, or one with rank_NNNNNN.events of its ranks.")
      ->option_text("FOLDER")
      ->required();
  add_cluster_flag(command, flags->cluster);
  command.callback([flags, &action] { action = [flags] { return report_again(*flags); }; });
}

}  // namespace

void add_profile_command(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "profile",
      "Says where a step goes: compute, communication, waiting, and for whom.\n"
      "Runs the job for some steps without touching its folder, and writes profile.json, "
      "report.html\nand trace.json. docs/profile.md has every definition.",
      "mpirun -np N sprocket profile --config FILE [flags]\n"
      "       sprocket profile report FOLDER\n"
      "       sprocket profile compare A.json B.json",
      "\nExamples:\n"
      "  mpirun -np 2 sprocket profile --config configs/quickstart.txtpb --steps 10\n"
      "  mpirun -np 2 sprocket profile --config configs/quickstart.txtpb --job sample --resume "
      "latest\n"
      "  mpirun -np 4 sprocket profile --config job.txtpb --cluster cluster.txtpb --output "
      "profiles/before\n" +
          exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig, ExitCode::kInput,
                           ExitCode::kOutput, ExitCode::kComm, ExitCode::kCuda,
                           ExitCode::kNonFinite, ExitCode::kInterrupted}));
  auto flags = std::make_shared<ProfileFlags>();
  command.add_option("--config", flags->config, "The job description: docs/config.md.")
      ->option_text("FILE");
  command
      .add_option("--set", flags->sets,
                  "Changes a field of the job, for example --set 'parallel.ulysses: 2'.")
      ->option_text("'PATH: VALUE'")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command
      .add_option("--job", flags->kind,
                  "What the job does: train (the default), distill, or sample, whose steps are "
                  "evaluations of the network.")
      ->option_text("train|distill|sample")
      ->check(CLI::IsMember({"train", "distill", "sample"}));
  command
      .add_option("--steps", flags->steps,
                  "Steps that are recorded; as many others, between them, show what recording "
                  "costs. 20.")
      ->option_text("N")
      ->check(CLI::Range(1, 1'000'000));
  command.add_option("--warmup", flags->warmup, "Steps before them. 5.")
      ->option_text("N")
      ->check(CLI::Range(0, 1'000'000));
  command
      .add_option("--output", flags->output,
                  "Folder of the files, which all ranks see; output.directory with _profile by "
                  "default.")
      ->option_text("DIR");
  command
      .add_option("--resume", flags->resume,
                  "The weights: none (random, or model.weights), latest (the newest checkpoint of "
                  "output.directory), or the path of a checkpoint or a run.")
      ->option_text("latest|none|PATH");
  add_cluster_flag(command, flags->cluster);
  command.add_flag("--verbose", flags->verbose, "Logs more, from every rank.");
  add_contact_flag(command, flags->contact);
  command.require_subcommand(0, 1);
  command.callback([flags, &action, &command] {
    if (!command.get_subcommands().empty()) return;
    if (flags->config.empty()) throw CLI::RequiredError("--config");
    action = [flags] {
      return run_on_ranks(
          flags->verbose ? LogLevel::kVerbose : LogLevel::kNormal,
          [&](const Session& session) { return profile_job(*flags, session); }, flags->contact);
    };
  });
  add_report_command(command, action);
  add_profile_compare_command(command, action);
}

}  // namespace sprocket::launcher

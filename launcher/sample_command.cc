#include <fmt/format.h>

#include "base/error.h"
#include "configs/defaults.h"
#include "configs/load.h"
#include "launcher/command.h"
#include "launcher/session.h"
#include "launcher/terminal.h"
#include "runtime/jobs/sample_job.h"

namespace sprocket::launcher {
namespace {

struct SampleFlags {
  JobFlags job;
  std::string resume = "latest";
};

std::string checkpoint_of(const SampleFlags& flags) {
  return flags.resume == "latest" ? "" : flags.resume;
}

// The description given by --config, or else the one that the checkpoint was made by, on this
// number of ranks.
config::LoadedJob load(const SampleFlags& flags, int world) {
  config::LoadOptions options;
  options.world = world;
  if (!flags.job.config.empty()) {
    options.purpose = config::Purpose::kSample;
    return config::load_job(flags.job.config, flags.job.sets, options);
  }
  if (checkpoint_of(flags).empty()) {
    throw ConfigError("expected --config FILE, or --resume with the path of a checkpoint or a run");
  }
  config::Job job = runtime::job_of_checkpoint(flags.resume);
  job.clear_parallel();
  return config::parse_job(config::to_text(job), flags.resume, flags.job.sets, options);
}

void print_files(const runtime::SampleResult& result) {
  for (const runtime::SampleFiles& files : result.samples) {
    fmt::print("{}\n  {}\n  {}\n", files.prompt, files.video, files.sheet);
    if (files.psnr)
      fmt::print("  PSNR {:.2f} dB against the codec's reconstruction\n", *files.psnr);
  }
}

ExitCode sample(const SampleFlags& flags, const Session& session) {
  config::Job job;
  session.run_on_all([&] { job = load(flags, session.size()).job; });
  if (flags.job.dry_run) {
    if (session.first()) fmt::print("{}", config::to_text(job));
    return ExitCode::kOk;
  }
  Timeline timeline;
  std::unique_ptr<comm::Communicator> world = session.make_world(job.parallel(), &timeline);
  runtime::SampleOptions options;
  options.checkpoint = checkpoint_of(flags);
  options.output = flags.job.output;
  options.threads = resolve_threads(job.compute(), *world);
  const parallel::TensorDevice device = take_device(job.compute(), *world);
  options.device = device.device();
  options.terminal = session.first() && watched_by_a_person();
  const runtime::SampleResult result = runtime::run_sampling(job, std::move(world), options);
  if (session.first()) print_files(result);
  return ExitCode::kOk;
}

ExitCode start(const SampleFlags& flags) {
  return run_on_ranks(flags.job.log_level(),
                      [&](const Session& session) { return sample(flags, session); });
}

}  // namespace

void add_sample_command(CLI::App& parent, Action& action) {
  CLI::App& command =
      add_command(parent, "sample",
                  "Generates videos from a checkpoint, on all ranks together.\n"
                  "Writes an mp4 and a PNG contact sheet for every prompt (sampling.prompt, or the "
                  "captions of the\n"
                  "data set).",
                  "[mpirun -np N] sprocket sample --config FILE | --resume PATH [flags]",
                  "\nExamples:\n"
                  "  mpirun -np 2 sprocket sample --config configs/quickstart.txtpb\n"
                  "  sprocket sample --resume outputs/quickstart/run --set 'sampling { prompt: \"a "
                  "rabbit\" steps: 30 "
                  "}' --output videos\n" +
                      exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig,
                                       ExitCode::kInput, ExitCode::kOutput, ExitCode::kComm}));
  auto flags = std::make_shared<SampleFlags>();
  add_job_flags(command, flags->job);
  CLI::Option& config = *command.get_option("--config");
  config.required(false);
  config.description("The job description (docs/config.md); by default that of the checkpoint.");
  command.get_option("--output")
      ->description("Folder of the videos; by default `samples` in the run's folder.");
  command.get_option("--dry-run")->description("Prints the resolved job and runs nothing.");
  command
      .add_option(
          "--resume", flags->resume,
          "The checkpoint: latest (the default: the newest valid one of the run's folder), or the "
          "path of a checkpoint or a run.")
      ->option_text("latest|PATH");
  command.callback([flags, &action] { action = [flags] { return start(*flags); }; });
}

}  // namespace sprocket::launcher

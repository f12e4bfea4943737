#include <fmt/format.h>

#include "base/error.h"
#include "configs/defaults.h"
#include "configs/load.h"
#include "launcher/command.h"
#include "launcher/session.h"
#include "launcher/terminal.h"
#include "runtime/jobs/comparison.h"
#include "runtime/jobs/sample_job.h"

namespace sprocket::launcher {
namespace {

struct SampleFlags {
  JobFlags job;
  std::string resume = "latest";
  std::vector<std::string> compare;
};

std::string checkpoint_of(const SampleFlags& flags) {
  return flags.resume == "latest" ? "" : flags.resume;
}

// The description that a checkpoint was made by, on this number of ranks.
config::LoadedJob load_from(const std::string& checkpoint, const std::vector<std::string>& sets,
                            int world) {
  config::LoadOptions options;
  options.world = world;
  config::Job job = runtime::job_of_checkpoint(checkpoint);
  job.clear_parallel();
  if (job.has_distillation()) {
    job.mutable_distillation()->mutable_teacher()->clear_parallel();
    job.mutable_distillation()->mutable_fake_score()->clear_parallel();
  }
  return config::parse_job(config::to_text(job), checkpoint, sets, options);
}

// The description given by --config, or else the checkpoint's.
config::LoadedJob load(const SampleFlags& flags, int world) {
  if (!flags.job.config.empty()) {
    config::LoadOptions options;
    options.world = world;
    options.purpose = config::Purpose::kSample;
    return config::load_job(flags.job.config, flags.job.sets, options);
  }
  if (checkpoint_of(flags).empty()) {
    throw ConfigError("expected --config FILE, or --resume with the path of a checkpoint or a run");
  }
  return load_from(flags.resume, flags.job.sets, world);
}

void print_files(const runtime::SampleResult& result) {
  for (const runtime::SampleFiles& files : result.samples) {
    fmt::print("{}\n  {}\n  {}\n", files.prompt, files.video, files.sheet);
    if (files.psnr)
      fmt::print("  PSNR {:.2f} dB against the codec's reconstruction\n", *files.psnr);
  }
}

runtime::SampleResult run(const config::Job& job, runtime::SampleOptions options,
                          const Session& session) {
  Timeline timeline;
  std::unique_ptr<comm::Communicator> world = session.make_world(job.parallel(), &timeline);
  options.threads = resolve_threads(job.compute(), *world);
  const parallel::TensorDevice device = take_device(job.compute(), *world);
  options.device = device.device();
  options.terminal = session.first() && watched_by_a_person();
  options.pulse = session.pulse();
  return runtime::run_sampling(job, std::move(world), options);
}

// One model after the other, each by its own job; the first one's prompts and seed.
ExitCode compare(const SampleFlags& flags, const Session& session) {
  std::vector<config::Job> jobs(flags.compare.size());
  session.run_on_all([&] {
    if (!flags.job.config.empty() || !checkpoint_of(flags).empty()) {
      throw ConfigError(
          "--compare: every model is sampled by its own checkpoint's job; expected neither "
          "--config nor --resume");
    }
    if (flags.job.output.empty()) {
      throw ConfigError("--compare: expected --output with the folder of the videos");
    }
    if (jobs.size() < 2) throw ConfigError("--compare: expected two or more checkpoints, found 1");
    for (size_t i = 0; i < jobs.size(); ++i) {
      jobs[i] = load_from(flags.compare[i], flags.job.sets, session.size()).job;
      jobs[i].mutable_sampling()->set_seed(jobs.front().sampling().seed());
    }
  });
  if (flags.job.dry_run) {
    for (const config::Job& job : jobs) {
      if (session.first()) fmt::print("{}", config::to_text(job));
    }
    return ExitCode::kOk;
  }
  std::vector<runtime::ComparedModel> models;
  for (size_t i = 0; i < jobs.size(); ++i) {
    runtime::SampleOptions options;
    options.checkpoint = flags.compare[i];
    options.timed = true;
    if (i > 0) options.reference = &models.front().result.as_reference;
    models.push_back({jobs[i], run(jobs[i], options, session)});
  }
  session.run_on_all([&] {
    if (!session.first()) return;
    const runtime::Comparison comparison = runtime::write_comparison(models, flags.job.output);
    for (const runtime::ComparisonFiles& files : comparison.files) {
      fmt::print("{}\n  {}\n  {}\n", files.prompt, files.video, files.sheet);
    }
    fmt::print("{}{}\n", runtime::comparison_text(comparison), comparison.json);
  });
  return ExitCode::kOk;
}

ExitCode sample(const SampleFlags& flags, const Session& session) {
  if (!flags.compare.empty()) return compare(flags, session);
  config::Job job;
  session.run_on_all([&] { job = load(flags, session.size()).job; });
  if (flags.job.dry_run) {
    if (session.first()) fmt::print("{}", config::to_text(job));
    return ExitCode::kOk;
  }
  runtime::SampleOptions options;
  options.checkpoint = checkpoint_of(flags);
  options.output = flags.job.output;
  const runtime::SampleResult result = run(job, options, session);
  if (session.first()) print_files(result);
  return ExitCode::kOk;
}

ExitCode start(const SampleFlags& flags) {
  return run_on_ranks(
      flags.job.log_level(), [&](const Session& session) { return sample(flags, session); },
      flags.job.contact);
}

}  // namespace

void add_sample_command(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "sample",
      "Generates videos from a checkpoint, on all ranks together.\n"
      "Writes an mp4 and a PNG contact sheet for every prompt (sampling.prompt, or the "
      "captions of the\n"
      "data set).",
      "[mpirun -np N] sprocket sample --config FILE | --resume PATH | --compare PATH... "
      "[flags]",
      "\nExamples:\n"
      "  mpirun -np 2 sprocket sample --config configs/quickstart.txtpb\n"
      "  sprocket sample --resume outputs/quickstart/run --set 'sampling { prompt: \"a "
      "rabbit\" steps: 30 "
      "}' --output videos\n"
      "  sprocket sample --compare outputs/teacher outputs/student --output comparison\n" +
          exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig, ExitCode::kInput,
                           ExitCode::kOutput, ExitCode::kComm}));
  auto flags = std::make_shared<SampleFlags>();
  add_job_flags(command, flags->job);
  add_contact_flag(command, flags->job.contact);
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
  command
      .add_option("--compare", flags->compare,
                  "Checkpoints or runs, the teacher first: each makes the same videos by its own "
                  "job (--set changes all of them). Writes them side by side, and compare.json "
                  "with time, steps, density and PSNR to the first one's.")
      ->option_text("PATH...");
  command.callback([flags, &action] { action = [flags] { return start(*flags); }; });
}

}  // namespace sprocket::launcher

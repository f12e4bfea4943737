#include "launcher/training_command.h"

#include <fmt/format.h>

#include "launcher/session.h"
#include "launcher/terminal.h"

namespace sprocket::launcher {
namespace {

config::LoadedJob load(const TrainingCommand& command, const TrainingFlags& flags, int world) {
  config::LoadOptions options;
  options.purpose = command.purpose;
  options.world = world;
  if (!flags.job.output.empty()) options.output_directory = flags.job.output;
  return config::load_job(flags.job.config, flags.job.sets, options);
}

void dry_run(const TrainingCommand& command, const TrainingFlags& flags, int world) {
  const config::LoadedJob loaded = load(command, flags, world);
  fmt::print("{}", command.dry_run(loaded, find_latent_shape(loaded)));
}

ExitCode run(const TrainingCommand& command, const TrainingFlags& flags, const Session& session) {
  config::Job job;
  session.run_on_all([&] {
    if (!flags.job.dry_run) {
      job = load(command, flags, session.size()).job;
    } else if (session.first()) {
      dry_run(command, flags, session.size());
    }
  });
  if (flags.job.dry_run) return ExitCode::kOk;
  Timeline timeline;
  std::unique_ptr<comm::Communicator> world = session.make_world(job.parallel(), &timeline);
  runtime::TrainOptions options;
  options.resume = flags.resume;
  options.threads = resolve_threads(job.compute(), *world);
  const parallel::TensorDevice device = take_device(job.compute(), *world);
  options.device = device.device();
  options.memory = resolve_memory(job.compute(), device, *world);
  options.terminal = session.first() && watched_by_a_person();
  const JobStop stop(session.supervised());
  options.stop = stop.flag();
  options.pulse = session.pulse();
  return command.run(job, std::move(world), options);
}

}  // namespace

void add_training_flags(CLI::App& command, TrainingFlags& flags) {
  add_job_flags(command, flags.job);
  add_contact_flag(command, flags.job.contact);
  command
      .add_option(
          "--resume", flags.resume,
          "Where to start: none (the default; refused when the folder holds a run), latest (the "
          "newest valid checkpoint of the folder), or the path of a checkpoint or a run.")
      ->option_text("latest|none|PATH");
  command
      .add_option("--ranks", flags.ranks, "With --dry-run: resolves for N ranks without mpirun.")
      ->option_text("N")
      ->check(CLI::Range(1, 1 << 20))
      ->needs("--dry-run");
}

ExitCode run_training_command(const TrainingCommand& command, const TrainingFlags& flags) {
  if (flags.job.dry_run && flags.ranks > 0) {
    dry_run(command, flags, flags.ranks);
    return ExitCode::kOk;
  }
  return run_on_ranks(
      flags.job.log_level(), [&](const Session& session) { return run(command, flags, session); },
      flags.job.contact);
}

}  // namespace sprocket::launcher

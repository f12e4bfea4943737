#include <fmt/format.h>

#include "launcher/command.h"
#include "launcher/latent_shape.h"
#include "launcher/session.h"
#include "launcher/terminal.h"
#include "runtime/jobs/train_job.h"
#include "runtime/plan/dry_run.h"

namespace sprocket::launcher {
namespace {

struct TrainFlags {
  JobFlags job;
  std::string resume = "none";
  int ranks = 0;
};

config::LoadedJob load(const TrainFlags& flags, int world) {
  config::LoadOptions options;
  options.purpose = config::Purpose::kTrain;
  options.world = world;
  if (!flags.job.output.empty()) options.output_directory = flags.job.output;
  return config::load_job(flags.job.config, flags.job.sets, options);
}

void dry_run(const TrainFlags& flags, int world) {
  const config::LoadedJob loaded = load(flags, world);
  const KnownShape known = find_latent_shape(loaded);
  fmt::print("{}", runtime::dry_run_report(loaded, known.shape, known.source));
}

ExitCode train(const TrainFlags& flags, const Session& session) {
  config::Job job;
  session.run_on_all([&] {
    if (!flags.job.dry_run) {
      job = load(flags, session.size()).job;
    } else if (session.first()) {
      dry_run(flags, session.size());
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
  return runtime::run_training(job, std::move(world), options).exit_code;
}

ExitCode start(const TrainFlags& flags) {
  if (flags.job.dry_run && flags.ranks > 0) {
    dry_run(flags, flags.ranks);
    return ExitCode::kOk;
  }
  return run_on_ranks(
      flags.job.log_level(), [&](const Session& session) { return train(flags, session); },
      flags.job.contact);
}

}  // namespace

void add_train_command(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "train",
      "Trains a video diffusion transformer, its token sequence sharded over all ranks.\n"
      "Writes checkpoints, metrics (metrics.jsonl) and the communication report (profile.json) to "
      "the\n"
      "run's folder.",
      "mpirun -np N sprocket train --config FILE [flags]",
      "\nExamples:\n"
      "  mpirun -np 2 sprocket train --config configs/quickstart.txtpb\n"
      "  mpirun -np 4 sprocket train --config configs/quickstart.txtpb --set 'parallel.ulysses: 2' "
      "--output runs/ulysses2\n"
      "  mpirun -np 2 sprocket train --config configs/quickstart.txtpb --resume latest\n"
      "  sprocket train --config configs/wan2.1_14b_vsa.txtpb --dry-run --ranks 64\n" +
          exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig, ExitCode::kInput,
                           ExitCode::kOutput, ExitCode::kComm, ExitCode::kNonFinite,
                           ExitCode::kInterrupted}));
  auto flags = std::make_shared<TrainFlags>();
  add_job_flags(command, flags->job);
  add_contact_flag(command, flags->job.contact);
  command
      .add_option(
          "--resume", flags->resume,
          "Where to start: none (the default; refused when the folder holds a run), latest (the "
          "newest valid checkpoint of the folder), or the path of a checkpoint or a run.")
      ->option_text("latest|none|PATH");
  command.add_option("--ranks", flags->ranks, "With --dry-run: plans for N ranks without mpirun.")
      ->option_text("N")
      ->check(CLI::Range(1, 1 << 20))
      ->needs("--dry-run");
  command.callback([flags, &action] { action = [flags] { return start(*flags); }; });
}

}  // namespace sprocket::launcher

#include "launcher/training_command.h"
#include "runtime/plan/dry_run.h"

namespace sprocket::launcher {
namespace {

constexpr TrainingCommand kTrain = {
    config::Purpose::kTrain,
    [](const config::LoadedJob& loaded, const KnownShape& known) {
      return runtime::dry_run_report(loaded, known.shape, known.source);
    },
    [](const config::Job& job, std::unique_ptr<comm::Communicator> world,
       const runtime::TrainOptions& options) {
      return runtime::run_training(job, std::move(world), options).exit_code;
    }};

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
  auto flags = std::make_shared<TrainingFlags>();
  add_training_flags(command, *flags);
  command.callback(
      [flags, &action] { action = [flags] { return run_training_command(kTrain, *flags); }; });
}

}  // namespace sprocket::launcher

#include "launcher/training_command.h"
#include "runtime/jobs/distill_job.h"
#include "runtime/plan/dry_run.h"

namespace sprocket::launcher {
namespace {

constexpr TrainingCommand kDistill = {
    config::Purpose::kDistill,
    [](const config::LoadedJob& loaded, const KnownShape& known) {
      return runtime::distillation_dry_run_report(loaded, known.shape, known.source);
    },
    [](const config::Job& job, std::unique_ptr<comm::Communicator> world,
       const runtime::TrainOptions& options) {
      return runtime::run_distillation(job, std::move(world), options).exit_code;
    }};

}  // namespace

void add_distill_command(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "distill",
      "Makes a model of few steps of a trained one (docs/distillation.md): TDM or DMD2, the "
      "student "
      "with\nsparse attention if the job says so. Writes checkpoints, metrics and the report as "
      "train does.",
      "mpirun -np N sprocket distill --config FILE [flags]",
      "\nExamples:\n"
      "  mpirun -np 2 sprocket distill --config configs/distill_quick.txtpb\n"
      "  mpirun -np 2 sprocket distill --config configs/distill_quick.txtpb --resume latest\n" +
          exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig, ExitCode::kInput,
                           ExitCode::kOutput, ExitCode::kComm, ExitCode::kNonFinite,
                           ExitCode::kInterrupted}));
  auto flags = std::make_shared<TrainingFlags>();
  add_training_flags(command, *flags);
  command.callback(
      [flags, &action] { action = [flags] { return run_training_command(kDistill, *flags); }; });
}

}  // namespace sprocket::launcher

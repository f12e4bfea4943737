// What `train` and `distill` share: flags, and the way from a job file to a run on all ranks.
#pragma once

#include <memory>
#include <string>

#include "configs/load.h"
#include "launcher/command.h"
#include "launcher/latent_shape.h"
#include "parallel/comm/communicator.h"
#include "runtime/jobs/train_job.h"

namespace sprocket::launcher {

struct TrainingFlags {
  JobFlags job;
  std::string resume = "none";
  int ranks = 0;  // of --dry-run without mpirun; 0: those of mpirun
};
void add_training_flags(CLI::App& command, TrainingFlags& flags);

struct TrainingCommand {
  config::Purpose purpose = config::Purpose::kTrain;
  std::string (*dry_run)(const config::LoadedJob& loaded, const KnownShape& known) = nullptr;
  ExitCode (*run)(const config::Job& job, std::unique_ptr<comm::Communicator> world,
                  const runtime::TrainOptions& options) = nullptr;
};
// Runs it on the ranks that mpirun started, or shows what it would do.
ExitCode run_training_command(const TrainingCommand& command, const TrainingFlags& flags);

}  // namespace sprocket::launcher

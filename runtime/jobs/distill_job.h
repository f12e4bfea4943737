// `sprocket distill`: a model of few steps made of one of many (docs/distillation.md).
#pragma once

#include <memory>
#include <vector>

#include "runtime/distill/distiller.h"
#include "runtime/jobs/train_job.h"

namespace sprocket::runtime {

struct DistillResult {
  int64_t first_step = 0;  // steps that a checkpoint brought
  int64_t last_step = 0;   // steps done in all
  // Of every step of this call, the same on all ranks.
  std::vector<std::vector<PhaseOutcome>> steps;
  std::string checkpoint;  // the newest one; empty: none was written
  ExitCode exit_code = ExitCode::kOk;
};

// As run_training, for a job with `distillation`. A checkpoint's model is the student; beside it
// are the fake score (fake_score, fake_score_optim) and, with ema_decay, the student's average
// (ema). The teacher is read from its own weights.
DistillResult run_distillation(const config::Job& job, std::unique_ptr<comm::Communicator> world,
                               const TrainOptions& options);

}  // namespace sprocket::runtime

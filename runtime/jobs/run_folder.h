// The folder of a run: created, claimed, and never shared by two runs.
//
//   job.txtpb      the resolved job
//   metrics.jsonl  one line for each step
//   tensorboard/   the same and the samples, for TensorBoard
//   step_*/        checkpoints
//   samples/       videos and contact sheets
//   profile.json   communication against compute
//   profile/       the same to look at, and the records that it is made of
#pragma once

#include <optional>
#include <string>

#include "configs/job.pb.h"
#include "runtime/checkpoint/run_checkpoints.h"

namespace sprocket::runtime {

// Creates output.directory if it is absent, finds where to start (TrainOptions::resume) and writes
// job.txtpb. One rank of a job calls it. Returns the checkpoint to start from.
// Throws OutputError when the folder holds another run (naming what was found) or cannot be
// written; InputError for a `resume` that is no valid checkpoint.
std::optional<CheckpointPath> prepare_run_folder(const config::Job& job, const std::string& resume);

}  // namespace sprocket::runtime

// What a checkpoint holds, in a few words.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/checkpoint/manifest.h"
#include "runtime/checkpoint/run_checkpoints.h"

namespace sprocket::runtime {

struct CheckpointSummary {
  CheckpointPath checkpoint;
  // Of the files that are there; what the manifest says is in `damage` where it differs.
  uint64_t bytes = 0;
  int files = 0;
  // "weights", "adapters", "moments", "fake score", "its moments", "average"; of a damaged one what
  // can still be told.
  std::vector<std::string> holds;
  // Why it is no complete checkpoint, a reason for each file; empty: it is one.
  std::vector<std::string> damage;
};

// Of a folder with a checkpoint's name. Reads all of it for kContents.
CheckpointSummary summarise_checkpoint(const CheckpointPath& checkpoint, VerifyDepth depth);

// The checkpoints of a run's folder, oldest first, or the one that `path` names, complete or not.
// Throws InputError where there is no such folder, or no checkpoint in it.
std::vector<CheckpointSummary> summarise_checkpoints(const std::string& path, VerifyDepth depth);

}  // namespace sprocket::runtime

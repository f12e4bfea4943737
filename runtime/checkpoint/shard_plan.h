// Which rank writes which tensors of a checkpoint, and into which files.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "runtime/checkpoint/checkpoint_tensors.h"

namespace sprocket::runtime {

struct ShardPlan {
  std::string file;             // relative to the checkpoint
  int rank = 0;                 // who writes it
  std::vector<size_t> tensors;  // indices within the part, ascending
};

struct PartPlan {
  std::string folder;
  std::vector<ShardPlan> shards;  // by rank; ranks without a tensor have none
  // What says in which file a tensor is, and its name; empty when there is one file.
  std::string index_file, index;
};

// Whole tensors, in their order, in about equal shares of the bytes: a function of names, shapes
// and the number of ranks, the same on every rank.
PartPlan plan_part(const CheckpointPart& part, int ranks);

}  // namespace sprocket::runtime

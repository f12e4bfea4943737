// Saving and loading checkpoints on all ranks.
//
//   step_00001000/
//     model/*.safetensors   parameters, fp32, official names
//     optim/*.safetensors   exp_avg.<name>, exp_avg_sq.<name>
//     …/*.safetensors       of other parts, such as a distillation's second network
//     state.txtpb           CheckpointState
//     MANIFEST              written last (manifest.h)
//
// A save writes into step_00001000.tmp-<id>, syncs, and renames: there is never a half-written
// folder of the final name. Tensors are divided among the ranks, which all see one file system.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"
#include "runtime/checkpoint/state.pb.h"

namespace sprocket::runtime {

// Borrowed; row-major.
struct CheckpointTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::span<float> values;
};

// Tensors that lie in a folder of their own.
struct CheckpointPart {
  std::string folder;  // within the checkpoint
  std::vector<CheckpointTensor> tensors;
};

struct CheckpointTensors {
  std::vector<CheckpointTensor> model;
  std::vector<CheckpointTensor> optimizer;
  std::vector<CheckpointPart> others;
};

// Collective; every rank holds all tensors, with equal values, and an equal state. Returns the new
// folder. When any rank fails, all throw OutputError, the unfinished folder is removed and older
// checkpoints are untouched. `keep`: as prune_checkpoints.
std::string save_checkpoint(comm::Communicator& world, const std::string& run_folder,
                            const CheckpointState& state, const CheckpointTensors& tensors,
                            int keep);

// Fills the tensors of every part that has any from a folder that open_checkpoint accepted. Each
// rank reads on its own. Throws InputError for missing tensors or other shapes.
void load_tensors(const std::string& checkpoint_path, const CheckpointTensors& tensors);

}  // namespace sprocket::runtime

// The tensors of a checkpoint, and loading them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

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

// All of them: folders model, optim, and the others.
std::vector<CheckpointPart> parts_of(const CheckpointTensors& tensors);

// Fills the tensors of every part that has any from a folder that open_checkpoint accepted, in
// however many files they are. Each rank reads on its own. Throws InputError for missing tensors or
// other shapes.
void load_tensors(const std::string& checkpoint_path, const CheckpointTensors& tensors);

}  // namespace sprocket::runtime

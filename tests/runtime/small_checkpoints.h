// Checkpoints of a few tensors, with closed-form values.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "runtime/checkpoint/checkpoint_saver.h"

namespace sprocket::testing {

// Tensors of several sizes, one without elements; values follow from `salt`.
class SmallTensors {
 public:
  explicit SmallTensors(float salt, int64_t width = 50);
  const runtime::CheckpointTensors& view() const { return tensors_; }
  bool operator==(const SmallTensors& other) const { return storage_ == other.storage_; }

 private:
  void add(std::vector<runtime::CheckpointTensor>& list, const std::string& name,
           std::vector<int64_t> shape, float salt);
  std::map<std::string, std::vector<float>> storage_;
  runtime::CheckpointTensors tensors_;
};

runtime::CheckpointState state_at(int64_t step);

// Collective; waits for the end and throws what went wrong.
std::string save_now(comm::Communicator& world, const std::string& run, int64_t step,
                     const SmallTensors& tensors, const runtime::Retention& retention = {});

// Saves SmallTensors(step) on thread ranks; the checkpoint's folder.
std::string save(const std::string& run, int64_t step, int ranks = 2, int keep = 0);

// Sorted.
std::vector<std::string> names_in(const std::string& folder);

}  // namespace sprocket::testing

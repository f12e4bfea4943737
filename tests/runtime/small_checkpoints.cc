#include "tests/runtime/small_checkpoints.h"

#include <algorithm>
#include <filesystem>

#include "runtime/checkpoint/run_checkpoints.h"
#include "tests/runtime/thread_ranks.h"

namespace sprocket::testing {

using runtime::CheckpointState;
using runtime::CheckpointTensor;

SmallTensors::SmallTensors(float salt, int64_t width) {
  add(tensors_.model, "a.weight", {7, width}, salt);
  add(tensors_.model, "b.bias", {3}, salt + 1);
  add(tensors_.model, "c.empty", {0, 4}, salt);
  add(tensors_.model, "d.weight", {2, 3, width}, salt + 2);
  add(tensors_.optimizer, "exp_avg.a.weight", {7, width}, salt + 3);
}

void SmallTensors::add(std::vector<CheckpointTensor>& list, const std::string& name,
                       std::vector<int64_t> shape, float salt) {
  int64_t elements = 1;
  for (const int64_t extent : shape) elements *= extent;
  auto& values = storage_[name];
  values.resize(elements);
  for (int64_t i = 0; i < elements; ++i) values[i] = salt + 0.25f * static_cast<float>(i);
  list.push_back({name, std::move(shape), values});
}

CheckpointState state_at(int64_t step) {
  CheckpointState state;
  state.set_schema(runtime::kCheckpointSchema);
  state.set_step(step);
  return state;
}

std::string save_now(comm::Communicator& world, const std::string& run, int64_t step,
                     const SmallTensors& tensors, const runtime::Retention& retention) {
  runtime::CheckpointSaver saver(world, run, retention);
  const runtime::SaveOutcome outcome = saver.save(state_at(step), tensors.view());
  if (outcome.error) std::rethrow_exception(outcome.error);
  return outcome.path;
}

std::string save(const std::string& run, int64_t step, int ranks, int keep) {
  std::string path;
  run_ranks(ranks, [&](std::unique_ptr<comm::Communicator> world) {
    const SmallTensors tensors(static_cast<float>(step));
    const std::string saved = save_now(*world, run, step, tensors, {keep, 0});
    if (world->rank() == 0) path = saved;
  });
  return path;
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace sprocket::testing

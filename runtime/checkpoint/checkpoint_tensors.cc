#include "runtime/checkpoint/checkpoint_tensors.h"

#include <fmt/ranges.h>

#include <filesystem>

#include "base/error.h"
#include "models/safetensors/tensor_set.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;

void fill(const safetensors::TensorSet& set, const CheckpointTensor& tensor) {
  const safetensors::TensorInfo& info = set.at(tensor.name);
  if (info.shape != tensor.shape) {
    throw InputError(fmt::format("{}: {} has the shape [{}], expected [{}]", set.path(),
                                 tensor.name, fmt::join(info.shape, ", "),
                                 fmt::join(tensor.shape, ", ")));
  }
  const auto data = set.data(tensor.name);
  if (!safetensors::convert_to_float(info.type, data, tensor.values)) {
    throw InputError(fmt::format("{}: {} has the type {}, expected a floating one", set.path(),
                                 tensor.name, safetensors::name_of(info.type)));
  }
}

void load_kind(const std::string& folder, const std::vector<CheckpointTensor>& tensors) {
  if (tensors.empty()) return;
  const auto set = safetensors::TensorSet::open(folder);
  if (set.names().size() != tensors.size()) {
    throw InputError(fmt::format("{}: holds {} tensors, expected {}", set.path(),
                                 set.names().size(), tensors.size()));
  }
  for (const CheckpointTensor& tensor : tensors) fill(set, tensor);
}

}  // namespace

std::vector<CheckpointPart> parts_of(const CheckpointTensors& tensors) {
  std::vector<CheckpointPart> parts = {{"model", tensors.model}, {"optim", tensors.optimizer}};
  parts.insert(parts.end(), tensors.others.begin(), tensors.others.end());
  return parts;
}

void load_tensors(const std::string& checkpoint_path, const CheckpointTensors& tensors) {
  for (const CheckpointPart& part : parts_of(tensors)) {
    load_kind((fs::path(checkpoint_path) / part.folder).string(), part.tensors);
  }
}

}  // namespace sprocket::runtime

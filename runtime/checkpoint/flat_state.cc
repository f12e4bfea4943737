#include "runtime/checkpoint/flat_state.h"

#include <ATen/TensorOperators.h>

namespace sprocket::runtime {

void FlatState::add(const std::string& prefix, const at::Tensor& flat) {
  flats_.push_back({prefix, flat, flat.cpu()});
}

std::vector<CheckpointTensor> FlatState::tensors() const {
  std::vector<CheckpointTensor> tensors;
  for (const Flat& flat : flats_) {
    auto* const values = flat.host.data_ptr<float>();
    for (int i = 0; i < parameters_.size(); ++i) {
      const models::ParameterSpec& spec = parameters_.spec(i);
      tensors.push_back(
          {flat.prefix + spec.name, spec.shape,
           std::span(values + parameters_.offset(i), static_cast<size_t>(spec.elements()))});
    }
  }
  return tensors;
}

void FlatState::write_back() const {
  for (const Flat& flat : flats_) {
    if (!flat.tensor.is_same(flat.host)) flat.tensor.copy_(flat.host);
  }
}

}  // namespace sprocket::runtime

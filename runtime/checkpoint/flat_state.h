// Flat tensors of a model's parameters in host memory, as checkpoints read and write them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/parameter_store.h"
#include "runtime/checkpoint/checkpoint_tensors.h"

namespace sprocket::runtime {

// On the processor the tensors themselves, else copies of what they hold when they are added.
class FlatState {
 public:
  // `parameters` must outlive the object.
  explicit FlatState(const models::ParameterStore& parameters) : parameters_(parameters) {}

  // `flat` has the layout of the store's flat tensors, in fp32; its parts are called prefix and the
  // parameter's name.
  void add(const std::string& prefix, const at::Tensor& flat);
  // All parts, borrowed from this object.
  std::vector<CheckpointTensor> tensors() const;
  // The tensors that were added become what tensors() hold now.
  void write_back() const;

 private:
  struct Flat {
    std::string prefix;
    at::Tensor tensor, host;
  };
  const models::ParameterStore& parameters_;
  std::vector<Flat> flats_;
};

}  // namespace sprocket::runtime

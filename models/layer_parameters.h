// What a model computes with: its parameters, and beside them adapters that are trained in their
// place.
#pragma once

#include <string>
#include <string_view>

#include "models/autograd/linear.h"
#include "models/parameter_store.h"

namespace sprocket::models {

struct ModelWeights {
  const ParameterStore& base;
  // Adapters of layers of `base` (models/lora.h), and tensors that take the place of those of the
  // same name in `base`; null: none.
  const ParameterStore* trained = nullptr;
  double adapter_factor = 1;

  // A store is weights without adapters.
  ModelWeights(const ParameterStore& base) : base(base) {}
  ModelWeights(const ParameterStore& base, const ParameterStore* trained, double adapter_factor)
      : base(base), trained(trained), adapter_factor(adapter_factor) {}

  // Throws InternalError when there is no such name.
  const at::Tensor& tensor(std::string_view name) const { return store_of(name).tensor(name); }
  // The store that has the tensor which counts.
  const ParameterStore& store_of(std::string_view name) const {
    return trained && trained->contains(name) ? *trained : base;
  }
  void refresh_copies() const;
};

// Throws InternalError unless the weights have the accumulator's type of products in `dtype`.
void check_dtype(const ModelWeights& weights, at::ScalarType dtype);

// The tensors of prefix.weight and prefix.bias, their adapter if they have one, and the copies that
// the stores keep.
Affine affine_of(const ModelWeights& weights, const std::string& prefix);

}  // namespace sprocket::models

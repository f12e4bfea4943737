// Activation checkpointing: keep a function's inputs, run it again in the backward.
#pragma once

#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/autograd/op_scope.h"

namespace sprocket::models {

using TensorFunction = std::function<at::Tensor(const std::vector<at::Tensor>& inputs)>;

// body(inputs), keeping only the inputs. In the backward the body runs once more under
// Phase::kRecompute, and gradients of leaves that it uses besides its inputs (parameters) go to
// their grad() at once. At least one input must require a gradient. The body must be a pure
// function of its inputs and of state that is the same then (a saved attention selection).
//
// The gradients are bitwise those without checkpointing when the body uses every input through one
// node of its graph (for example an alias made first), so that sums over uses associate alike.
at::Tensor checkpoint(const TensorFunction& body, const std::vector<at::Tensor>& inputs,
                      const OpContext& op);

}  // namespace sprocket::models

// Linear layers: on the processor fp32 through the project's own products, bf16 and fp64 through
// LibTorch's; on devices through LibTorch's, with sums in fp32 and without TF32.
#pragma once

#include <ATen/core/Tensor.h>

#include "models/autograd/op_scope.h"

namespace sprocket::models {

// A low-rank term of a layer (models/lora.h), in A: down [r, k], up [n, r].
struct Adapter {
  at::Tensor down, up;  // undefined: none
  at::Tensor down_copy, up_copy;
  double factor = 1;
};

// A layer's parameters, in A: weight [n, k], bias [n]. The copies are what they are when rounded to
// bf16; undefined: a product in bf16 rounds for itself.
struct Affine {
  at::Tensor weight, bias;
  at::Tensor weight_copy, bias_copy;
  Adapter adapter;
};

// y[.., n] = sum_k x[.., k] weight[n, k] + bias[n] + factor sum_r up[n, r] sum_k x[.., k] down[r,
// k]. x is T; parameters are rounded to T inside; y is T. Saves x, and with an adapter down x:
// where there are no copies the weight is rounded again in the backward. dx is T, the parameters'
// gradients are A; those of parameters that require none are not computed.
at::Tensor linear(const at::Tensor& x, const Affine& layer, const OpContext& op);

// linear(gelu(x)) with the tanh form of GELU. Saves x alone: gelu(x) is made again in the backward.
at::Tensor gelu_linear(const at::Tensor& x, const Affine& layer, const OpContext& op);

}  // namespace sprocket::models

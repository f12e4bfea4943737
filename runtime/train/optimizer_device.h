// The optimizer's work on flat fp32 tensors of a CUDA device: the twins of adamw_update and
// sum_of_squares of kernels/elementwise.h.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/element_parameters.h"

namespace sprocket::runtime::device {

// Waits for the sum: one number for a step.
double sum_of_squares(const at::Tensor& values);

// Enqueues the update and returns. `copy`, undefined or bf16 of the same elements, receives the new
// parameter rounded.
void adamw_update(const kernels::AdamWStep& step, const at::Tensor& gradient,
                  const at::Tensor& parameter, const at::Tensor& mean, const at::Tensor& square,
                  const at::Tensor& copy);

}  // namespace sprocket::runtime::device

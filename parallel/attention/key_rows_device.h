// The pyramid of key rows for tensors on a CUDA device: the twins of expand_pyramid and
// add_pyramid_gradient (kernels/pyramid.h), the same bits. They enqueue and return.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/pyramid.h"

namespace sprocket::parallel::device {

void expand_pyramid(const at::Tensor& x_BLHD, const kernels::PyramidLayout& layout,
                    const at::Tensor& rows_BRHD);
// Both fp32.
void add_pyramid_gradient(const at::Tensor& drows_BRHD, const kernels::PyramidLayout& layout,
                          const at::Tensor& dx_BLHD);

}  // namespace sprocket::parallel::device

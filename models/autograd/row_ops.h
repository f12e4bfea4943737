// The work between a block's matrix products, on tensors: one interface, a twin for the processor
// (kernels/elementwise.h) and one for CUDA devices (kernels/cuda/elementwise.h), which say the
// formulas. Tensors are contiguous, in the memory of the twin that they are given to; results are
// written into tensors that the caller has made.
#pragma once

#include <ATen/core/Tensor.h>

#include "models/rope_tables.h"

namespace sprocket::models {

class RowOps {
 public:
  virtual ~RowOps() = default;

  // scale and shift [B, D], or one weight and bias [D].
  struct Affine {
    at::Tensor scale, shift;  // shift undefined: not needed (in the backward)
    bool per_sample = true;
    double base = 1;
  };
  // y_BLD (T) = LN(x_BLD) * (base + scale) + shift.
  virtual void layer_norm(const at::Tensor& x, const Affine& affine, double eps,
                          const at::Tensor& y, int threads) const = 0;
  // dx (A) += the gradient of x; dscale and dshift are overwritten.
  virtual void layer_norm_backward(const at::Tensor& dy, const at::Tensor& x, const Affine& affine,
                                   double eps, const at::Tensor& dx, const at::Tensor& dscale,
                                   const at::Tensor& dshift, int threads) const = 0;
  // x_BLD -> y [B, L, H, D / H]; rope without tables: no rotation.
  virtual void rms_norm_rotate(const at::Tensor& x, const at::Tensor& weight,
                               const RopeTables& rope, int64_t head_dim, double eps,
                               const at::Tensor& y, int threads) const = 0;
  virtual void rms_norm_rotate_backward(const at::Tensor& dy, const at::Tensor& x,
                                        const at::Tensor& weight, const RopeTables& rope,
                                        int64_t head_dim, double eps, const at::Tensor& dx,
                                        const at::Tensor& dweight, int threads) const = 0;
  // x_BLD (A) += y (T) * gate_BD; gate undefined: 1.
  virtual void add_gated(const at::Tensor& y, const at::Tensor& gate, const at::Tensor& x,
                         int threads) const = 0;
  virtual void add_gated_backward(const at::Tensor& dx, const at::Tensor& y, const at::Tensor& gate,
                                  const at::Tensor& dy, const at::Tensor& dgate,
                                  int threads) const = 0;
  virtual void gelu(const at::Tensor& x, const at::Tensor& y, int threads) const = 0;
  // dx may be dy.
  virtual void gelu_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx,
                             int threads) const = 0;
};

// The twin for where `x` is. Throws InternalError for a device that this build knows nothing of.
const RowOps& row_ops(const at::Tensor& x);

const RowOps& host_row_ops();
const RowOps& cuda_row_ops();

}  // namespace sprocket::models

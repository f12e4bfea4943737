// What the element-wise kernels of the host and of devices take beside their arrays.
#pragma once

#include <cstdint>

namespace sprocket::kernels {

// y = LN(x) * (base + scale) + shift. Sample b's scale and shift begin at b * sample_stride; a
// stride of 0 shares one [dim] among all samples. adaLN: base 1, vectors per sample. Affine
// LayerNorm: base 0, scale = weight, shift = bias, stride 0.
template <class A>
struct RowAffine {
  const A* scale = nullptr;
  const A* shift = nullptr;
  int64_t sample_stride = 0;
  double base = 1;
};

// Rotary positions on adjacent pairs: (a, b) of pair i of every head becomes
// (a cos - b sin, a sin + b cos). cos and sin: [rows, head_dim / 2], the same for every sample.
// Null tables: no rotation. head_dim is even and divides dim.
template <class A>
struct Rotation {
  const A* cos = nullptr;
  const A* sin = nullptr;
  int64_t head_dim = 0;
};

// One AdamW update as PyTorch's (decoupled weight decay, eps outside the root):
//   g = gradient_scale * gradient;  p *= 1 - lr * weight_decay
//   m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
//   p -= lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
struct AdamWStep {
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  double gradient_scale = 1;  // of clipping
  int64_t step = 1;           // counted from 1
};

}  // namespace sprocket::kernels

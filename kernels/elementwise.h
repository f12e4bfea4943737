// The work of a transformer step between its matrix products, fused: norms with modulation, rotary
// positions, gates, GELU, and the optimizer's update.
//
// T, the compute type, is double (proofs), float or BFloat16; A = Accumulator<T> holds the residual
// stream, modulations, norm weights, statistics and all sums. Arrays are contiguous and row-major:
// activations [batch, rows, dim] with `rows` per sample, sums over rows [batch, dim].
//
// Sums over rows are made of sums over kSumRows rows each of one sample, added in ascending order:
// they, like every other result, are bitwise independent of `threads`. Counts may be 0. Nothing
// aliases unless a comment allows it.
#pragma once

#include <cstdint>

#include "base/bfloat16.h"
#include "kernels/element_parameters.h"
#include "kernels/head_view.h"

namespace sprocket::kernels {

inline constexpr int64_t kSumRows = 64;

// x: [batch, rows, dim]; y likewise. LN subtracts the mean and divides by sqrt(variance + eps), the
// population's.
template <class T>
void layer_norm(const Accumulator<T>* x, const RowAffine<Accumulator<T>>& affine, int64_t batch,
                int64_t rows, int64_t dim, double eps, T* y, int threads);

// dx += the gradient of x. dscale and dshift are overwritten; sample b's begin at
// b * affine.sample_stride of each; stride 0 sums over all samples.
template <class T>
void layer_norm_backward(const T* dy, const Accumulator<T>* x,
                         const RowAffine<Accumulator<T>>& affine, int64_t batch, int64_t rows,
                         int64_t dim, double eps, Accumulator<T>* dx, Accumulator<T>* dscale,
                         Accumulator<T>* dshift, int threads);

// y = rotate(x / sqrt(mean(x^2) + eps) * weight), the mean over all dim channels (before the head
// split). weight: [dim]. y may be x.
template <class T>
void rms_norm_rotate(const T* x, const Accumulator<T>* weight,
                     const Rotation<Accumulator<T>>& rotation, int64_t batch, int64_t rows,
                     int64_t dim, double eps, T* y, int threads);

// dx and dweight ([dim], summed over all rows) are overwritten. dx may be dy.
template <class T>
void rms_norm_rotate_backward(const T* dy, const T* x, const Accumulator<T>* weight,
                              const Rotation<Accumulator<T>>& rotation, int64_t batch, int64_t rows,
                              int64_t dim, double eps, T* dx, Accumulator<T>* dweight, int threads);

// x += y * gate; sample b's gate begins at b * gate_stride. A null gate is 1.
template <class T>
void add_gated(const T* y, const Accumulator<T>* gate, int64_t gate_stride, int64_t batch,
               int64_t rows, int64_t dim, Accumulator<T>* x, int threads);

// dy = dx * gate, and, unless gate is null, dgate = the sum over rows of dx * y, sample b's at
// b * gate_stride; both overwritten. The gradient of the old x is dx itself.
template <class T>
void add_gated_backward(const Accumulator<T>* dx, const T* y, const Accumulator<T>* gate,
                        int64_t gate_stride, int64_t batch, int64_t rows, int64_t dim, T* dy,
                        Accumulator<T>* dgate, int threads);

// y = x / (1 + exp(-2 u)) = x (1 + tanh(u)) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3): GELU in its
// tanh form. In float the relative error is below (6 + 4 |2 u| / (1 + exp(2 u))) 2^-24, so that
// only results far below |x| lose digits. y may be x.
template <class T>
void gelu_tanh(const T* x, int64_t count, T* y, int threads);

// dx = dy * gelu'(x), overwritten; dx may be dy.
template <class T>
void gelu_tanh_backward(const T* dy, const T* x, int64_t count, T* dx, int threads);

// parameter, mean and square: as AdamWStep says.
template <class A>
void adamw_update(const AdamWStep& step, const A* gradient, int64_t count, A* parameter, A* mean,
                  A* square, int threads);

// The sum of squares in double, by partial sums over 4,096 elements in ascending order.
template <class A>
double sum_of_squares(const A* values, int64_t count, int threads);

}  // namespace sprocket::kernels

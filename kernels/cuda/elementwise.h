// The work of a transformer step between its matrix products, on the device: twins of
// kernels/elementwise.h, where the formulas are.
//
// T, the compute type, is float, __nv_bfloat16 or __half; the residual stream, modulations, norm
// weights, rotary tables, statistics and sums are float. All arrays are in device memory,
// contiguous, row-major and 16-byte aligned: activations [batch, rows, dim] with `rows` per sample.
// Counts may be 0. Nothing aliases unless a comment allows it.
//
// Calls are asynchronous on `stream` and allocate nothing. A `..._workspace_bytes` function says
// how much device memory a call needs for sums over rows; what is in it does not matter.
//
// Deterministic: every sum is made in an order that its length alone fixes, sums over rows by
// partial sums over 32 rows of a sample. Results differ from the host's by roundings.
//
// Errors: ConfigError for a dim that is not a multiple of 8, or above 8,192 where a comment says
// so; CudaError when the launch fails; InternalError for misaligned or missing memory.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/stream.h"
#include "kernels/cuda/argument_checks.h"
#include "kernels/element_parameters.h"

namespace sprocket::kernels::cuda {

// y = LN(x) * (base + scale) + shift. dim at most 8,192. Sample strides are multiples of 4.
template <class T>
void layer_norm(const float* x, const RowAffine<float>& affine, int64_t batch, int64_t rows,
                int64_t dim, double eps, T* y, StreamView stream);

// dx += the gradient of x. dscale and dshift are overwritten; sample b's begin at
// b * affine.sample_stride of each; stride 0 sums over all samples. dim at most 8,192.
int64_t layer_norm_backward_workspace_bytes(int64_t batch, int64_t rows, int64_t dim);
template <class T>
void layer_norm_backward(const T* dy, const float* x, const RowAffine<float>& affine, int64_t batch,
                         int64_t rows, int64_t dim, double eps, float* dx, float* dscale,
                         float* dshift, const Workspace& workspace, StreamView stream);

// y = rotate(x / sqrt(mean(x^2) + eps) * weight). y may be x. dim at most 8,192; head_dim is a
// multiple of 8 and divides dim.
template <class T>
void rms_norm_rotate(const T* x, const float* weight, const Rotation<float>& rotation,
                     int64_t batch, int64_t rows, int64_t dim, double eps, T* y, StreamView stream);

// dx and dweight ([dim], summed over all rows) are overwritten. dx may be dy.
int64_t rms_norm_rotate_backward_workspace_bytes(int64_t batch, int64_t rows, int64_t dim);
template <class T>
void rms_norm_rotate_backward(const T* dy, const T* x, const float* weight,
                              const Rotation<float>& rotation, int64_t batch, int64_t rows,
                              int64_t dim, double eps, T* dx, float* dweight,
                              const Workspace& workspace, StreamView stream);

// x += y * gate; sample b's gate begins at b * gate_stride, a multiple of 4. A null gate is 1.
template <class T>
void add_gated(const T* y, const float* gate, int64_t gate_stride, int64_t batch, int64_t rows,
               int64_t dim, float* x, StreamView stream);

// dy = dx * gate, and, unless gate is null, dgate = the sum over rows of dx * y, sample b's at
// b * gate_stride (stride 0: over all samples); both overwritten. Without a gate y, dgate and the
// workspace are not used.
int64_t add_gated_backward_workspace_bytes(int64_t batch, int64_t rows, int64_t dim);
template <class T>
void add_gated_backward(const float* dx, const T* y, const float* gate, int64_t gate_stride,
                        int64_t batch, int64_t rows, int64_t dim, T* dy, float* dgate,
                        const Workspace& workspace, StreamView stream);

// GELU in its tanh form. y may be x. For float the host's bound on the relative error, for 16-bit
// types half a unit of the result and 2^-17.
template <class T>
void gelu_tanh(const T* x, int64_t count, T* y, StreamView stream);

// dx = dy * gelu'(x), overwritten; dx may be dy.
template <class T>
void gelu_tanh_backward(const T* dy, const T* x, int64_t count, T* dx, StreamView stream);

}  // namespace sprocket::kernels::cuda

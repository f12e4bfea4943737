// The optimizer's step on the device: twins of adamw_update and sum_of_squares of
// kernels/elementwise.h. Asynchronous on `stream`, allocating nothing, the same bits on every run.
//
// Clipping needs no word from the host: sum_of_squares leaves its sum in device memory, clip_scale
// makes the factor there, adamw_update reads it.
#pragma once

#include <cstdint>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/stream.h"
#include "kernels/cuda/argument_checks.h"
#include "kernels/element_parameters.h"

namespace sprocket::kernels::cuda {

// `count` elements of each array, in device memory. `copy`, null or in T, receives the new
// parameter rounded to nearest even. Arrays aligned to 16 bytes are updated by vectors, others one
// by one.
template <class T>
struct AdamWTensor {
  const float* gradient = nullptr;
  float* parameter = nullptr;
  float* mean = nullptr;
  float* square = nullptr;
  T* copy = nullptr;
  int64_t count = 0;
};

// What one block of threads updates: elements from chunk * kAdamWChunk on of a tensor, at most
// kAdamWChunk.
struct TensorChunk {
  int32_t tensor = 0;
  int32_t chunk = 0;
};
inline constexpr int64_t kAdamWChunk = 8192;

// The chunks of tensors of these counts, which a caller puts into device memory once.
std::vector<TensorChunk> tensor_chunks(const std::vector<int64_t>& counts);

// tensors and chunks: in device memory; chunks [chunk_count] are those of tensor_chunks.
// gradient_scale: one float in device memory that multiplies step.gradient_scale, or null for 1.
// T: __nv_bfloat16 or __half, the type of the copies.
template <class T>
void adamw_update(const AdamWStep& step, const AdamWTensor<T>* tensors, const TensorChunk* chunks,
                  int64_t chunk_count, const float* gradient_scale, StreamView stream);

// *sum = the sum of squares in double, by partial sums over 16,384 elements. values: [count],
// 16-byte aligned.
int64_t sum_of_squares_workspace_bytes(int64_t count);
void sum_of_squares(const float* values, int64_t count, double* sum, const Workspace& workspace,
                    StreamView stream);

// *scale = clip_norm / norm where norm = sqrt(*sum_of_squares) is above clip_norm, else 1 (also for
// a norm that is not a number).
void clip_scale(const double* sum_of_squares, double clip_norm, float* scale, StreamView stream);

}  // namespace sprocket::kernels::cuda

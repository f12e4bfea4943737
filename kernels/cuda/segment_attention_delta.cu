// delta = rowsum(dO * O): 8 values to a thread, 8 or 16 threads to a row.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "base/cuda_stream.h"
#include "kernels/cuda/segment_attention_device.cuh"
#include "kernels/cuda/segment_attention_launch.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kValues = 8;

__device__ void load(const float* from, float (&to)[kValues]) {
  for (int i = 0; i < kValues; i += 4) {
    const float4 values = *reinterpret_cast<const float4*>(from + i);
    to[i] = values.x;
    to[i + 1] = values.y;
    to[i + 2] = values.z;
    to[i + 3] = values.w;
  }
}

template <class T>
__device__ void load(const T* from, float (&to)[kValues]) {
  struct alignas(16) {
    T values[kValues];
  } piece;
  *reinterpret_cast<uint4*>(&piece) = *reinterpret_cast<const uint4*>(from);
  for (int i = 0; i < kValues; ++i) to[i] = static_cast<float>(piece.values[i]);
}

template <class T, class Out, int kHeadDim>
__global__ void __launch_bounds__(kThreads)
    segment_attention_delta(const __grid_constant__ DeltaArguments arguments) {
  constexpr int kRowThreads = kHeadDim / kValues;
  const int64_t index = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kRowThreads;
  const int lane = threadIdx.x % kRowThreads;
  float sum = 0;
  if (index < arguments.all_rows) {
    // Heads fastest: in [B, L, H, D] neighbours in memory.
    const int head = static_cast<int>(index % arguments.heads);
    const int64_t row = index / arguments.heads % arguments.rows;
    const int batch = static_cast<int>(index / arguments.heads / arguments.rows);
    float out[kValues], dout[kValues];
    load(row_of<const Out>(arguments.out, batch, row, head) + lane * kValues, out);
    load(row_of<const T>(arguments.dout, batch, row, head) + lane * kValues, dout);
    for (int i = 0; i < kValues; ++i) sum = fmaf(out[i], dout[i], sum);
  }
  for (int distance = 1; distance < kRowThreads; distance *= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  }
  if (index < arguments.all_rows && lane == 0) {
    const int64_t head = index % arguments.heads;
    const int64_t row = index / arguments.heads % arguments.rows;
    const int64_t batch = index / arguments.heads / arguments.rows;
    arguments.delta[(batch * arguments.heads + head) * arguments.rows + row] = sum;
  }
}

template <class T, class Out, int kHeadDim>
void launch(const DeltaArguments& arguments, cudaStream_t stream) {
  const int64_t threads = int64_t{arguments.all_rows} * (kHeadDim / kValues);
  const auto blocks = static_cast<unsigned>((threads + kThreads - 1) / kThreads);
  segment_attention_delta<T, Out, kHeadDim><<<blocks, kThreads, 0, stream>>>(arguments);
  check_cuda(cudaGetLastError(), "launching the attention delta");
}

template <class T, class Out>
void launch_dim(const DeltaArguments& arguments, cudaStream_t stream) {
  arguments.head_dim == 64 ? launch<T, Out, 64>(arguments, stream)
                           : launch<T, Out, 128>(arguments, stream);
}

template <class T>
void launch_out(const DeltaArguments& arguments, cudaStream_t stream) {
  arguments.out_is_float ? launch_dim<T, float>(arguments, stream)
                         : launch_dim<T, T>(arguments, stream);
}

}  // namespace

void launch_delta(const DeltaArguments& arguments, CUstream_st* stream) {
  switch (arguments.element) {
    case Element::kBFloat16:
      return launch_out<__nv_bfloat16>(arguments, stream);
    case Element::kFloat16:
      return launch_out<__half>(arguments, stream);
  }
}

}  // namespace sprocket::kernels::cuda

// Launches of the backward of family sm_80.
#pragma once

#include "base/cuda_stream.h"
#include "kernels/cuda/segment_attention_sm80_key_gradients.cuh"
#include "kernels/cuda/segment_attention_sm80_query_gradients.cuh"

namespace sprocket::kernels::cuda::sm80 {

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads)
    segment_attention_backward_sm80(const __grid_constant__ BackwardArguments arguments) {
  extern __shared__ __align__(128) unsigned char memory[];
  Kernel::run(arguments, *reinterpret_cast<typename Kernel::Shared*>(memory));
}

template <class Kernel>
void launch_backward(const BackwardArguments& arguments, int blocks, cudaStream_t stream) {
  constexpr int kBytes = sizeof(typename Kernel::Shared);
  const auto kernel = segment_attention_backward_sm80<Kernel>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
             "cudaFuncSetAttribute for the attention backward");
  kernel<<<blocks, Kernel::kThreads, kBytes, stream>>>(arguments);
  check_cuda(cudaGetLastError(), "launching the attention backward");
}

template <Element kElement, int kHeadDim, int kQueryRows>
void launch_key_gradients(const BackwardArguments& arguments, cudaStream_t stream) {
  // Query tiles of 32 rows at D = 128: with more, the sums of a warp exceed its registers.
  constexpr int kTileRows = kHeadDim == 128 || kQueryRows == 32 ? 32 : 64;
  const SegmentAttentionProblem& problem = arguments.problem;
  const int heads = problem.last_head - problem.first_head;
  const int key_tiles = pair_slot(problem.max_query_rows, problem.max_kv_rows).key_tiles;
  launch_backward<KeyGradientKernel<kElement, kHeadDim, kTileRows>>(
      arguments, heads * problem.table.kv_blocks * key_tiles, stream);
}

template <Element kElement, int kHeadDim, int kQueryRows>
void launch_query_gradients(const BackwardArguments& arguments, cudaStream_t stream) {
  const int heads = arguments.problem.last_head - arguments.problem.first_head;
  launch_backward<QueryGradientKernel<kElement, kHeadDim, kQueryRows>>(
      arguments, heads * (arguments.last_query_block - arguments.first_query_block), stream);
}

}  // namespace sprocket::kernels::cuda::sm80

namespace sprocket::kernels::cuda {

template <Element kElement, int kHeadDim>
void launch_key_gradients_sm80(const BackwardArguments& arguments, CUstream_st* stream) {
  switch (query_tile_rows(arguments.problem.max_query_rows)) {
    case 32:
      return sm80::launch_key_gradients<kElement, kHeadDim, 32>(arguments, stream);
    case 64:
    case 128:
      return sm80::launch_key_gradients<kElement, kHeadDim, 64>(arguments, stream);
  }
}

template <Element kElement, int kHeadDim>
void launch_query_gradients_sm80(const BackwardArguments& arguments, CUstream_st* stream) {
  switch (query_tile_rows(arguments.problem.max_query_rows)) {
    case 32:
      return sm80::launch_query_gradients<kElement, kHeadDim, 32>(arguments, stream);
    case 64:
      return sm80::launch_query_gradients<kElement, kHeadDim, 64>(arguments, stream);
    case 128:
      return sm80::launch_query_gradients<kElement, kHeadDim, 128>(arguments, stream);
  }
}

}  // namespace sprocket::kernels::cuda

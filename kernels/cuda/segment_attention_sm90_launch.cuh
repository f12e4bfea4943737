// How the kernels of family sm_90 begin and are launched. The first warpgroup loads, one warp of
// it; the others compute.
//
// A kernel has: Launch, its parameter, with `arguments`; Shared, with `tiles` (Stages); kThreads;
// kProducerRegisters and kConsumerRegisters, of a thread; blocks(arguments), of the grid;
// produce(launch, shared) and consume(arguments, shared).
#pragma once

#include <cutlass/arch/reg_reconfig.h>

#include "base/cuda_stream.h"
#include "kernels/cuda/segment_attention_sm90_producer.cuh"

namespace sprocket::kernels::cuda::sm90 {

inline constexpr int kGroupThreads = 128;
inline constexpr int kRegisters = 65536;  // of a multiprocessor

// Of a thread, as the compiler allots them: in eights.
template <class Kernel>
inline constexpr int kFirstRegisters = kRegisters / Kernel::kThreads / 8 * 8;

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, 1)
    segment_attention_sm90(const __grid_constant__ typename Kernel::Launch launch) {
  constexpr int kComputing = Kernel::kThreads / kGroupThreads - 1;
  constexpr int kProducer = Kernel::kProducerRegisters, kConsumer = Kernel::kConsumerRegisters;
  static_assert(kProducer + kComputing * kConsumer <= (1 + kComputing) * kFirstRegisters<Kernel>);
  extern __shared__ __align__(1024) unsigned char memory[];
  auto& shared = *reinterpret_cast<typename Kernel::Shared*>(memory);
  if (threadIdx.x == 0) shared.tiles.begin(4 * kComputing);
  __syncthreads();
  if (threadIdx.x < kGroupThreads) {
    cutlass::arch::warpgroup_reg_dealloc<kProducer>();
    if (threadIdx.x < kLanes) Kernel::produce(launch, shared);
  } else {
    cutlass::arch::warpgroup_reg_alloc<kConsumer>();
    Kernel::consume(launch.arguments, shared);
  }
}

template <class Kernel>
void launch(const typename Kernel::Launch& launch, cudaStream_t stream) {
  constexpr int kBytes = sizeof(typename Kernel::Shared);
  const auto kernel = segment_attention_sm90<Kernel>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
             "cudaFuncSetAttribute for segment attention");
  kernel<<<Kernel::blocks(launch.arguments), Kernel::kThreads, kBytes, stream>>>(launch);
  check_cuda(cudaGetLastError(), "launching segment attention");
}

}  // namespace sprocket::kernels::cuda::sm90

#include "kernels/cuda/argument_checks.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/octet.cuh"
#include "kernels/cuda/rank_ordered_sum.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// Adds what `load` gives for each source after the first, several loads under way.
template <class Load>
__device__ __forceinline__ Octet sum_of_sources(int ranks, Load load) {
  Octet sum = load(0);
#pragma unroll 4
  for (int rank = 1; rank < ranks; ++rank) {
    const Octet next = load(rank);
#pragma unroll
    for (int i = 0; i < kOctet; ++i) sum.v[i] += next.v[i];
  }
  return sum;
}

// `out` may be a source: a thread writes what it alone reads.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_in_rank_order_kernel(const T* const* sources, int ranks, int64_t count, T* out) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kOctet;
  if (at + kOctet <= count) {
    store_octet(out + at,
                sum_of_sources(ranks, [&](int r) { return load_octet(sources[r] + at); }));
  } else if (at < count) {
    store_first(
        out + at,
        sum_of_sources(ranks, [&](int r) { return load_first(sources[r] + at, count - at); }),
        count - at);
  }
}

}  // namespace

template <class T>
void sum_in_rank_order(const T* const* sources, int ranks, int64_t count, T* out,
                       StreamView stream) {
  SPROCKET_CHECK_GE(ranks, 1);
  check_aligned(out, "sum_in_rank_order", "out");
  if (count == 0) return;
  sum_in_rank_order_kernel<T>
      <<<grid_of(count, int64_t{kThreads} * kOctet), kThreads, 0, stream_of(stream)>>>(
          sources, ranks, count, out);
  check_launch("sum_in_rank_order");
}

template void sum_in_rank_order(const float* const*, int, int64_t, float*, StreamView);
template void sum_in_rank_order(const __nv_bfloat16* const*, int, int64_t, __nv_bfloat16*,
                                StreamView);
template void sum_in_rank_order(const __half* const*, int, int64_t, __half*, StreamView);

}  // namespace sprocket::kernels::cuda

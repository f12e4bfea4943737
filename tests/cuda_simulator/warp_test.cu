// Divergence, reconvergence, exchange between lanes, calls.
#include <cstdint>

#include "tests/cuda_simulator/device_vector.h"

namespace sprocket::cuda_simulator {
namespace {

__host__ __device__ int collatz_steps(int64_t n) {
  int steps = 0;
  while (n != 1) {
    n = n % 2 == 0 ? n / 2 : 3 * n + 1;
    ++steps;
  }
  return steps;
}

__global__ void divergent(int* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  out[i] = collatz_steps(i + 1);
}

TEST(Warp, divergent_loops_and_early_exit) {
  constexpr int kCount = 203;
  DeviceVector<int> out(kCount);
  divergent<<<4, 64>>>(out.data(), kCount);
  const auto results = out.host();
  for (int i = 0; i < kCount; ++i) ASSERT_EQ(results[i], collatz_steps(i + 1)) << i;
}

__global__ void exchange(uint32_t* out) {
  const uint32_t lane = threadIdx.x, value = lane * lane + 3;
  uint32_t sum = value;
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  uint32_t scan = value;
  for (int step = 1; step < 32; step *= 2) {
    const uint32_t other = __shfl_up_sync(~0u, scan, step);
    if (lane >= static_cast<uint32_t>(step)) scan += other;
  }
  // Lanes of both sides of a branch meet again at the shuffle.
  uint32_t mixed = lane;
  if (lane % 5 == 2) mixed = 1000 + collatz_steps(lane + 1);
  mixed = __shfl_sync(~0u, mixed, (lane + 3) % 32);
  uint32_t* r = out + lane * 9;
  r[0] = sum;
  r[1] = scan;
  r[2] = mixed;
  r[3] = __ballot_sync(~0u, lane % 3 == 1);
  r[4] = __any_sync(~0u, lane == 40) | __all_sync(~0u, lane < 32) << 1;
  r[5] = __match_any_sync(~0u, lane / 6);
  r[6] = __reduce_add_sync(~0u, value);
  r[7] = __shfl_down_sync(~0u, value, 3, 8);
  r[8] = lane < 7 ? __ballot_sync(0x7f, lane != 2) : __activemask();
}

TEST(Warp, exchange_between_lanes) {
  DeviceVector<uint32_t> out(32 * 9);
  exchange<<<1, 32>>>(out.data());
  const auto results = out.host();
  uint32_t total = 0;
  for (uint32_t lane = 0; lane < 32; ++lane) total += lane * lane + 3;
  uint32_t scan = 0;
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const uint32_t* r = results.data() + lane * 9;
    scan += lane * lane + 3;
    ASSERT_EQ(r[0], total);
    ASSERT_EQ(r[1], scan);
    const uint32_t from = (lane + 3) % 32;
    ASSERT_EQ(r[2], from % 5 == 2 ? 1000 + collatz_steps(from + 1) : from);
    ASSERT_EQ(r[3], 0x92492492u);
    ASSERT_EQ(r[4], 2u);
    ASSERT_EQ(r[5], lane < 30 ? 0x3fu << (lane / 6 * 6) : 0xc0000000u);
    ASSERT_EQ(r[6], total);
    const uint32_t source = lane % 8 < 5 ? lane + 3 : lane;
    ASSERT_EQ(r[7], source * source + 3);
    ASSERT_EQ(r[8], lane < 7 ? 0x7bu : 0xffffff80u);
  }
}

__device__ __noinline__ float polynomial(float x, int degree) {
  float result = 0;
  for (int k = 0; k <= degree; ++k) result = result * x + static_cast<float>(k + 1);
  return result;
}

__global__ void calls(float* out) {
  const float x = 0.01f * threadIdx.x;
  out[threadIdx.x] = threadIdx.x % 3 == 0 ? polynomial(x, 5) : polynomial(x, threadIdx.x % 4) + 1;
}

TEST(Warp, calls_from_divergent_places) {
  DeviceVector<float> out(64);
  calls<<<1, 64>>>(out.data());
  const auto results = out.host();
  for (int i = 0; i < 64; ++i) {
    double expected = 0;
    const int degree = i % 3 == 0 ? 5 : i % 4;
    for (int k = 0; k <= degree; ++k) expected = expected * 0.01 * i + k + 1;
    EXPECT_NEAR(results[i], expected + (i % 3 != 0), 1e-5);
  }
}

// A warp whose lanes wait for each other through memory, in either order of the branch.
__global__ void handshake(volatile int* flags, int* out) {
  if (threadIdx.x % 2 == 0) {
    while (flags[threadIdx.x + 1] == 0) {
    }
    out[threadIdx.x] = flags[threadIdx.x + 1];
  } else {
    flags[threadIdx.x] = 7 + threadIdx.x;
    out[threadIdx.x] = 1;
  }
}

TEST(Warp, lanes_that_spin_let_others_run) {
  DeviceVector<int> flags(std::vector<int>(33, 0)), out(32);
  handshake<<<1, 32>>>(flags.data(), out.data());
  const auto results = out.host();
  for (int i = 0; i < 32; ++i) ASSERT_EQ(results[i], i % 2 ? 1 : 8 + i);
}

__global__ void tables(int* out, int shift) {
  int r = 0;
  switch ((threadIdx.x + shift) % 9) {
    case 0:
      r = 11;
      break;
    case 1:
      r = threadIdx.x * 3;
      break;
    case 2:
      r = 17 + shift;
      [[fallthrough]];
    case 3:
      r += 5;
      break;
    case 4:
      r = collatz_steps(threadIdx.x + 2);
      break;
    case 5:
      r = 99;
      break;
    case 6:
      r = -threadIdx.x;
      break;
    default:
      r = 1;
  }
  out[threadIdx.x] = r;
}

TEST(Warp, branches_by_table) {
  DeviceVector<int> out(32);
  tables<<<1, 32>>>(out.data(), 2);
  const auto results = out.host();
  const int expected[] = {24, 5, collatz_steps(4), 99, -4, 1, 1, 11, 24, 24, 5};
  for (int i : {0, 1, 2, 3, 4, 5, 6, 7, 9, 10}) {
    ASSERT_EQ(results[i], i == 9 ? 24 : expected[i]) << i;
  }
}

}  // namespace
}  // namespace sprocket::cuda_simulator

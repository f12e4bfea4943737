// Missing waits of asynchronous copies, and what goes wrong with mbarriers. Not for a GPU.
#include <gmock/gmock.h>

#include <cstdint>
#include <functional>
#include <string>

#include "tests/cuda_simulator/barriers.h"
#include "tests/cuda_simulator/device_vector.h"

namespace sprocket::cuda_simulator {
namespace {

using testing::HasSubstr;

// Two groups, of which kPending are not waited for.
template <int kPending>
__global__ void async_copies(const uint32_t* in, uint32_t* out) {
  __shared__ alignas(16) uint32_t buffer[2][32];
  for (int i = 0; i < 2; ++i) {
    asm volatile(
        "cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(&buffer[i][threadIdx.x])),
        "l"(in + threadIdx.x));
    asm volatile("cp.async.commit_group;");
  }
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
  for (int i = 0; i < 2; ++i) out[2 * threadIdx.x + i] = buffer[i][threadIdx.x];
}

template <int kPending>
std::vector<uint32_t> copied() {
  DeviceVector<uint32_t> in(std::vector<uint32_t>(32, 5)), out(64);
  async_copies<kPending><<<1, 32>>>(in.data(), out.data());
  auto results = out.host();
  results.resize(2);
  return results;
}

TEST(AsyncFault, copies_that_are_not_waited_for) {
  EXPECT_EQ(copied<0>(), (std::vector<uint32_t>{5, 5}));
  EXPECT_EQ(copied<1>(), (std::vector<uint32_t>{5, ~0u}));
  EXPECT_EQ(copied<2>(), (std::vector<uint32_t>{~0u, ~0u}));
}

// The source of a bulk copy is used again before it was read.
__global__ void early_reuse(float* out) {
  __shared__ alignas(128) float row[32];
  for (int r = 0; r < 2; ++r) {
    row[threadIdx.x] = static_cast<float>(r * 100);
    __syncwarp();
    if (threadIdx.x == 0) {
      asm volatile(
          "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], 128;" ::"l"(out),
          "r"(shared_address(row)));
      asm volatile("cp.async.bulk.commit_group;");
    }
    __syncwarp();
  }
}

TEST(AsyncFault, source_that_is_used_again_too_early) {
  DeviceVector<float> out(std::vector<float>(32, 1));
  early_reuse<<<1, 32>>>(out.data());
  EXPECT_EQ(out.host()[0], 201) << "100 twice";
}

// Two bulk copies with an mbarrier each; the second may not be waited for.
template <bool kWaits>
__global__ void two_bulk_copies(const uint32_t* in, uint32_t* out) {
  __shared__ alignas(128) uint32_t buffer[2][32];
  __shared__ uint64_t full[2];
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) {
      init_barrier(&full[i], 1);
      expect_bytes(&full[i], sizeof buffer[i]);
      asm volatile(
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
          "[%3];" ::"r"(shared_address(buffer[i])),
          "l"(in), "n"(sizeof buffer[i]), "r"(shared_address(&full[i]))
          : "memory");
    }
  }
  __syncthreads();
  wait_parity(&full[0], 0);
  if (kWaits) wait_parity(&full[1], 0);
  for (int i = 0; i < 2; ++i) out[2 * threadIdx.x + i] = buffer[i][threadIdx.x];
}

TEST(AsyncFault, bulk_copy_that_comes_after_the_one_that_is_waited_for) {
  const auto copied = [](auto* kernel) {
    DeviceVector<uint32_t> in(std::vector<uint32_t>(32, 5)), out(64);
    kernel<<<1, 32>>>(in.data(), out.data());
    auto results = out.host();
    results.resize(2);
    return results;
  };
  EXPECT_EQ(copied(two_bulk_copies<true>), (std::vector<uint32_t>{5, 5}));
  EXPECT_EQ(copied(two_bulk_copies<false>), (std::vector<uint32_t>{5, ~0u}));
}

// A warpgroup multiplies matrices of ones, 64 x 16 by 16 x 8, and gives them back to another warp,
// which clears them: when the product is finished, or before.
template <bool kEarly>
__global__ void multiplied_and_given_back(float* out) {
  constexpr uint64_t kForm = uint64_t{256 >> 4} << 32 | uint64_t{128 >> 4} << 16;
  __shared__ alignas(128) uint16_t a[64 * 16], b[8 * 16];
  __shared__ uint64_t empty;
  for (unsigned i = threadIdx.x; i < 64 * 16; i += blockDim.x) a[i] = 0x3f80;
  for (unsigned i = threadIdx.x; i < 8 * 16; i += blockDim.x) b[i] = 0x3f80;
  if (threadIdx.x == 0) init_barrier(&empty, 4);
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  if (threadIdx.x < 128) {
    const auto give_back = [&] {
      if (threadIdx.x % 32 == 0)
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&empty))
                     : "memory");
    };
    float sums[4] = {};
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    asm volatile(
        "{\n"
        ".reg .pred keeps;\n"
        "setp.ne.b32 keeps, %6, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, keeps, 1, "
        "1, 0, 0;\n"
        "}"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "l"(kForm | shared_address(a) >> 4), "l"(kForm | shared_address(b) >> 4), "r"(0));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    if (kEarly) give_back();
    asm volatile("wgmma.wait_group.sync.aligned 0;"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])::"memory");
    if (!kEarly) give_back();
    out[threadIdx.x] = sums[0];
  } else {
    wait_parity(&empty, 0);
    volatile uint16_t* const memory = b;
    for (unsigned i = threadIdx.x % 32; i < 8 * 16; i += 32) memory[i] = 0;
  }
}

TEST(AsyncFault, operand_that_is_given_back_before_the_product_is_made) {
  const auto sums = [](auto* kernel) {
    DeviceVector<float> out(128);
    kernel<<<1, 160>>>(out.data());
    return out.host();
  };
  EXPECT_EQ(sums(multiplied_and_given_back<false>), std::vector<float>(128, 16));
  EXPECT_NE(sums(multiplied_and_given_back<true>), std::vector<float>(128, 16));
}

std::string message_of(const std::function<void()>& launch, cudaError_t expected) {
  testing::internal::CaptureStderr();
  launch();
  EXPECT_EQ(cudaDeviceSynchronize(), expected);
  cudaDeviceReset();
  return testing::internal::GetCapturedStderr();
}

__global__ void too_many_arrivals() {
  __shared__ uint64_t barrier;
  if (threadIdx.x == 0) init_barrier(&barrier, 1);
  __syncwarp();
  if (threadIdx.x < 2) expect_bytes(&barrier, 16);
}

__global__ void not_initialised() {
  __shared__ uint64_t barrier;
  expect_bytes(&barrier, 16);
}

__global__ void never_complete() {
  __shared__ uint64_t barrier;
  if (threadIdx.x == 0) {
    init_barrier(&barrier, 1);
    expect_bytes(&barrier, 16);
  }
  __syncthreads();
  wait_parity(&barrier, 0);
}

TEST(AsyncFault, mbarriers) {
  EXPECT_THAT(message_of([] { too_many_arrivals<<<1, 32>>>(); }, cudaErrorIllegalInstruction),
              HasSubstr("expects 0 more"));
  EXPECT_THAT(message_of([] { not_initialised<<<1, 1>>>(); }, cudaErrorIllegalInstruction),
              HasSubstr("not initialised"));
  EXPECT_THAT(message_of([] { never_complete<<<1, 32>>>(); }, cudaErrorLaunchTimeout),
              HasSubstr("try_wait"));
}

}  // namespace
}  // namespace sprocket::cuda_simulator

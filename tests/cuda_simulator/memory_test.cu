// Shared, local, constant and global memory; vectors, atomics, barriers; the runtime's own
// functions.
#include <cuda_fp16.h>

#include <cstdint>
#include <numeric>

#include "tests/cuda_simulator/device_vector.h"

namespace sprocket::cuda_simulator {
namespace {

__constant__ float table[4] = {1.5f, -2, 3, 4};
__device__ int counter = 5;

extern __shared__ float dynamic_shared[];

__global__ void reduce_in_blocks(const float4* in, float* out, int n) {
  __shared__ float partial[4];
  float sum = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    const float4 v = in[i];
    sum += v.x * table[0] + v.y * table[1] + v.z * table[2] + v.w * table[3];
  }
  dynamic_shared[threadIdx.x] = sum;
  __syncthreads();
  for (unsigned step = blockDim.x / 2; step >= 32; step /= 2) {
    if (threadIdx.x < step) dynamic_shared[threadIdx.x] += dynamic_shared[threadIdx.x + step];
    __syncthreads();
  }
  if (threadIdx.x < 4) {
    partial[threadIdx.x] = 0;
    for (int k = 0; k < 8; ++k) partial[threadIdx.x] += dynamic_shared[8 * threadIdx.x + k];
  }
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = partial[0] + partial[1] + partial[2] + partial[3];
}

TEST(Memory, shared_reduction_with_vector_loads) {
  constexpr int kCount = 700, kBlocks = 3, kThreads = 128;
  std::vector<float4> in(kCount);
  double expected = 0;
  for (int i = 0; i < kCount; ++i) {
    in[i] = {static_cast<float>(i % 7), static_cast<float>(i % 5), static_cast<float>(i % 3), 0.5f};
    expected += in[i].x * 1.5 - 2 * in[i].y + 3 * in[i].z + 2;
  }
  DeviceVector<float4> device_in(in);
  DeviceVector<float> out(kBlocks);
  reduce_in_blocks<<<kBlocks, kThreads, kThreads * sizeof(float)>>>(device_in.data(), out.data(),
                                                                    kCount);
  const auto results = out.host();
  EXPECT_NEAR(std::accumulate(results.begin(), results.end(), 0.0), expected, 0.01);
}

__global__ void atomics(unsigned* bins, float* sum, uint64_t* largest, __half2* halves) {
  __shared__ unsigned local_bins[8];
  if (threadIdx.x < 8) local_bins[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(&local_bins[threadIdx.x * 5 % 8], threadIdx.x);
  atomicAdd(sum, 0.5f);
  atomicMax(reinterpret_cast<unsigned long long*>(largest), 1ull << (threadIdx.x % 50));
  atomicAdd(halves, __floats2half2_rn(1, 2));
  atomicAdd(&counter, 1);
  __syncthreads();
  if (threadIdx.x < 8) bins[threadIdx.x] = atomicExch(&local_bins[threadIdx.x], 1u);
}

TEST(Memory, atomics) {
  DeviceVector<unsigned> bins(8);
  DeviceVector<float> sum(std::vector<float>{1});
  DeviceVector<uint64_t> largest(std::vector<uint64_t>{0});
  DeviceVector<uint32_t> halves(std::vector<uint32_t>{0});
  atomics<<<1, 128>>>(bins.data(), sum.data(), largest.data(),
                      reinterpret_cast<__half2*>(halves.data()));
  unsigned expected[8] = {};
  for (unsigned i = 0; i < 128; ++i) expected[i * 5 % 8] += i;
  const auto results = bins.host();
  for (int i = 0; i < 8; ++i) ASSERT_EQ(results[i], expected[i]);
  EXPECT_EQ(sum.host()[0], 65);
  EXPECT_EQ(largest.host()[0], uint64_t{1} << 49);
  EXPECT_EQ(halves.host()[0], 0x5c005800u);  // 128 and 256
  int count = 0;
  ASSERT_EQ(cudaMemcpyFromSymbol(&count, counter, sizeof count), cudaSuccess);
  EXPECT_EQ(count, 5 + 128);
}

// An array that is indexed at run time lies in local memory.
__global__ void local_array(int* out, int shift) {
  int values[16];
  for (int i = 0; i < 16; ++i) values[(i * shift + threadIdx.x) % 16] = i * 100 + threadIdx.x;
  int sum = 0;
  for (int i = 0; i <= static_cast<int>(threadIdx.x) % 16; ++i) sum += values[i];
  out[threadIdx.x] = sum;
}

TEST(Memory, local_arrays) {
  DeviceVector<int> out(64);
  local_array<<<1, 64>>>(out.data(), 3);
  const auto results = out.host();
  for (int t = 0; t < 64; ++t) {
    int values[16], sum = 0;
    for (int i = 0; i < 16; ++i) values[(i * 3 + t) % 16] = i * 100 + t;
    for (int i = 0; i <= t % 16; ++i) sum += values[i];
    ASSERT_EQ(results[t], sum) << t;
  }
}

// Producers and consumers on two named barriers.
__global__ void named_barriers(int* out) {
  __shared__ int slot[32];
  const int lane = threadIdx.x % 32;
  for (int round = 0; round < 5; ++round) {
    if (threadIdx.x < 32) {
      asm volatile("bar.sync 1, 64;" ::: "memory");
      slot[lane] = round * 1000 + lane;
      asm volatile("bar.arrive 2, 64;" ::: "memory");
    } else {
      asm volatile("bar.arrive 1, 64;" ::: "memory");
      asm volatile("bar.sync 2, 64;" ::: "memory");
      out[round * 32 + lane] = slot[31 - lane];
    }
  }
}

TEST(Memory, named_barriers) {
  DeviceVector<int> out(160);
  named_barriers<<<1, 64>>>(out.data());
  const auto results = out.host();
  for (int i = 0; i < 160; ++i) ASSERT_EQ(results[i], i / 32 * 1000 + 31 - i % 32);
}

__global__ void counted(int* out) { out[threadIdx.x] = __syncthreads_count(threadIdx.x % 3 == 0); }

TEST(Memory, barriers_that_count) {
  DeviceVector<int> out(70);
  counted<<<1, 70>>>(out.data());
  for (int n : out.host()) EXPECT_EQ(n, 24);
}

TEST(Runtime, copies_are_checked) {
  DeviceVector<int> a(std::vector<int>{1, 2, 3, 4}), b(4);
  EXPECT_EQ(cudaMemcpy(b.data(), a.data(), 16, cudaMemcpyDeviceToDevice), cudaSuccess);
  EXPECT_EQ(b.host(), (std::vector<int>{1, 2, 3, 4}));
  int host[5];
  EXPECT_NE(cudaMemcpy(host, a.data(), 20, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_NE(cudaMemcpy(host, a.data(), 16, cudaMemcpyHostToDevice), cudaSuccess);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemset(a.data(), 0xff, 8), cudaSuccess);
  EXPECT_EQ(a.host(), (std::vector<int>{-1, -1, 3, 4}));
}

TEST(Runtime, launches_are_checked) {
  DeviceVector<int> out(8);
  counted<<<1, 2048>>>(out.data());
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
  counted<<<1, 8, 100 << 10>>>(out.data());
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFuncSetAttribute(counted, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 << 10),
            cudaSuccess);
  counted<<<1, 8, 100 << 10>>>(out.data());
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(out.host()[0], 3);
}

}  // namespace
}  // namespace sprocket::cuda_simulator

// Clusters of two: each other's shared memory, mbarriers, multicast, bulk copies and reductions.
#include <cstdint>

#include "tests/cuda_simulator/barriers.h"
#include "tests/cuda_simulator/device_vector.h"

namespace sprocket::cuda_simulator {
namespace {

// Each block leaves its numbers in the other's shared memory, and reads them back from there.
__global__ void __cluster_dims__(2, 1, 1) exchange_in_cluster(int* out) {
  __shared__ int values[64];
  uint32_t theirs;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(theirs)
               : "r"(shared_address(values + threadIdx.x)), "r"(cluster_rank() ^ 1));
  cluster_sync();
  asm volatile("st.shared::cluster.s32 [%0], %1;" ::"r"(theirs),
               "r"(static_cast<int>(blockIdx.x * 100 + threadIdx.x)));
  cluster_sync();
  int back;
  asm volatile("ld.shared::cluster.s32 %0, [%1];" : "=r"(back) : "r"(theirs));
  out[blockIdx.x * 64 + threadIdx.x] = values[63 - threadIdx.x] * 1000 + back;
  cluster_sync();
}

TEST(Cluster, shared_memory_of_the_other_block) {
  DeviceVector<int> out(256);
  exchange_in_cluster<<<4, 64>>>(out.data());
  const auto results = out.host();
  for (int i = 0; i < 256; ++i) {
    const int block = i / 64, thread = i % 64;
    ASSERT_EQ(results[i], ((block ^ 1) * 100 + 63 - thread) * 1000 + block * 100 + thread) << i;
  }
}

// The first block copies a row to both, each has a barrier of its own.
__global__ void __cluster_dims__(2, 1, 1) multicast(const int* in, int* out) {
  __shared__ alignas(128) int row[32];
  __shared__ uint64_t barrier;
  if (threadIdx.x == 0) {
    init_barrier(&barrier, 1);
    expect_bytes(&barrier, 128);
  }
  cluster_sync();
  if (threadIdx.x == 0 && cluster_rank() == 0) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1], 128, [%2], "
        "%3;" ::"r"(shared_address(row)),
        "l"(in + blockIdx.x / 2 * 32), "r"(shared_address(&barrier)),
        "h"(static_cast<uint16_t>(3)));
  }
  wait_parity(&barrier, 0);
  out[blockIdx.x * 32 + threadIdx.x] = row[threadIdx.x];
  cluster_sync();
}

TEST(Cluster, multicast) {
  std::vector<int> in(64);
  for (int i = 0; i < 64; ++i) in[i] = i * i;
  DeviceVector<int> device_in(in), out(128);
  multicast<<<4, 32>>>(device_in.data(), out.data());
  const auto results = out.host();
  for (int i = 0; i < 128; ++i) ASSERT_EQ(results[i], in[i / 64 * 32 + i % 32]) << i;
}

// A ring of two stages: one warp fetches, another adds up and hands the stage back.
__global__ void ring(const float* in, float* out, int rounds) {
  __shared__ alignas(128) float stage[2][32];
  __shared__ uint64_t full[2], empty[2];
  if (threadIdx.x == 0) {
    for (int s = 0; s < 2; ++s) {
      init_barrier(&full[s], 1);
      init_barrier(&empty[s], 32);
    }
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    if (threadIdx.x == 0) {
      for (int r = 0; r < rounds; ++r) {
        if (r >= 2) wait_parity(&empty[r % 2], (r / 2 - 1) % 2);
        expect_bytes(&full[r % 2], 128);
        asm volatile(
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], 128, "
            "[%2];" ::"r"(shared_address(stage[r % 2])),
            "l"(in + 32 * r), "r"(shared_address(&full[r % 2])));
      }
    }
  } else {
    float sum = 0;
    for (int r = 0; r < rounds; ++r) {
      wait_parity(&full[r % 2], r / 2 % 2);
      sum += stage[r % 2][threadIdx.x - 32] * static_cast<float>(r + 1);
      asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&empty[r % 2])));
    }
    out[threadIdx.x - 32] = sum;
  }
}

TEST(Cluster, ring_of_stages) {
  constexpr int kRounds = 7;
  std::vector<float> in(32 * kRounds);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i % 23);
  DeviceVector<float> device_in(in), out(32);
  ring<<<1, 64>>>(device_in.data(), out.data(), kRounds);
  const auto results = out.host();
  for (int i = 0; i < 32; ++i) {
    float sum = 0;
    for (int r = 0; r < kRounds; ++r) sum += in[32 * r + i] * static_cast<float>(r + 1);
    ASSERT_EQ(results[i], sum) << i;
  }
}

__global__ void bulk_reduction(float* out) {
  __shared__ alignas(128) float row[32];
  for (int r = 0; r < 2; ++r) {
    row[threadIdx.x] = static_cast<float>(threadIdx.x + r * 100);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncwarp();
    if (threadIdx.x == 0) {
      asm volatile(
          "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], 128;" ::"l"(out),
          "r"(shared_address(row)));
      asm volatile("cp.async.bulk.commit_group;");
      asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
    }
    __syncwarp();
  }
}

TEST(Cluster, bulk_reduction) {
  DeviceVector<float> out(std::vector<float>(32, 1));
  bulk_reduction<<<1, 32>>>(out.data());
  const auto results = out.host();
  for (int i = 0; i < 32; ++i) ASSERT_EQ(results[i], static_cast<float>(101 + 2 * i)) << i;
}

}  // namespace
}  // namespace sprocket::cuda_simulator

// CUB's block and device algorithms: large kernels with every kind of exchange.
#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_scan.cuh>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include <algorithm>

#include "tests/cuda_simulator/device_vector.h"

namespace sprocket::cuda_simulator {
namespace {

constexpr int kThreads = 128, kItems = 4;

__global__ void sort_block(unsigned* keys, int* values) {
  using Sort = cub::BlockRadixSort<unsigned, kThreads, kItems, int>;
  __shared__ typename Sort::TempStorage storage;
  unsigned k[kItems];
  int v[kItems];
  for (int i = 0; i < kItems; ++i) {
    k[i] = keys[threadIdx.x * kItems + i];
    v[i] = values[threadIdx.x * kItems + i];
  }
  Sort(storage).Sort(k, v);
  for (int i = 0; i < kItems; ++i) {
    keys[threadIdx.x * kItems + i] = k[i];
    values[threadIdx.x * kItems + i] = v[i];
  }
}

TEST(Cub, block_radix_sort) {
  std::vector<unsigned> keys(kThreads * kItems);
  std::vector<int> values(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    keys[i] = static_cast<unsigned>(i * 2654435761u) >> 22;
    values[i] = static_cast<int>(i);
  }
  DeviceVector<unsigned> device_keys(keys);
  DeviceVector<int> device_values(values);
  sort_block<<<1, kThreads>>>(device_keys.data(), device_values.data());
  std::stable_sort(values.begin(), values.end(), [&](int a, int b) { return keys[a] < keys[b]; });
  EXPECT_EQ(device_values.host(), values);
}

TEST(Cub, device_scan) {
  std::vector<int> in(20000);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<int>(i * 7 % 13);
  DeviceVector<int> device_in(in), out(in.size());
  size_t bytes = 0;
  ASSERT_EQ(cub::DeviceScan::ExclusiveSum(nullptr, bytes, device_in.data(), out.data(), in.size()),
            cudaSuccess);
  DeviceVector<char> storage(bytes);
  ASSERT_EQ(
      cub::DeviceScan::ExclusiveSum(storage.data(), bytes, device_in.data(), out.data(), in.size()),
      cudaSuccess);
  const auto results = out.host();
  int sum = 0;
  for (size_t i = 0; i < in.size(); ++i) {
    ASSERT_EQ(results[i], sum) << i;
    sum += in[i];
  }
}

TEST(Cub, device_radix_sort) {
  std::vector<unsigned> keys(5000);
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = static_cast<unsigned>(i * 2654435761u);
  DeviceVector<unsigned> in(keys), out(keys.size());
  size_t bytes = 0;
  ASSERT_EQ(cub::DeviceRadixSort::SortKeys(nullptr, bytes, in.data(), out.data(), keys.size()),
            cudaSuccess);
  DeviceVector<char> storage(bytes);
  ASSERT_EQ(
      cub::DeviceRadixSort::SortKeys(storage.data(), bytes, in.data(), out.data(), keys.size()),
      cudaSuccess);
  std::sort(keys.begin(), keys.end());
  EXPECT_EQ(out.host(), keys);
}

}  // namespace
}  // namespace sprocket::cuda_simulator

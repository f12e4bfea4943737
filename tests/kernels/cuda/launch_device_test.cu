#include "kernels/cuda/launch.h"

#include <gtest/gtest.h>

namespace sprocket::kernels::cuda {
namespace {

__global__ void fill(int* out, int values) {
  extern __shared__ int shared[];
  shared[values - 1] = values;
  *out = shared[values - 1];
}

// As ranks do to each other that are threads: one asks for less between another one's asking and
// its launch.
TEST(AllowSharedMemory, IsNeverTakenBack) {
  constexpr int kBytes = 96 << 10;
  int* out = nullptr;
  check_cuda(cudaMalloc(reinterpret_cast<void**>(&out), sizeof(int)), "cudaMalloc");
  allow_shared_memory(fill, kBytes);
  allow_shared_memory(fill, 1 << 10);
  const int values = kBytes / static_cast<int>(sizeof(int));
  fill<<<1, 1, kBytes>>>(out, values);
  EXPECT_NO_THROW(check_launch("fill"));
  int value = 0;
  check_cuda(cudaMemcpy(&value, out, sizeof value, cudaMemcpyDeviceToHost), "cudaMemcpy");
  EXPECT_EQ(value, values);
  check_cuda(cudaFree(out), "cudaFree");
}

}  // namespace
}  // namespace sprocket::kernels::cuda

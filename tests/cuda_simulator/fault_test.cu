// What the simulator finds: accesses out of bounds, deadlocks, missing barriers. Not for a GPU.
#include <gmock/gmock.h>

#include <cstdlib>
#include <functional>
#include <optional>
#include <string>

#include "tests/cuda_simulator/device_vector.h"

namespace sprocket::cuda_simulator {
namespace {

using testing::HasSubstr;

// A fault stays until the device is reset, which frees all memory and reads the options again.
class Fault : public testing::Test {
 protected:
  void SetUp() override {
    const char* options = std::getenv("CUDA_SIMULATOR");
    if (options != nullptr) options_ = options;
  }
  void TearDown() override {
    if (options_) {
      setenv("CUDA_SIMULATOR", options_->c_str(), 1);
    } else {
      unsetenv("CUDA_SIMULATOR");
    }
    cudaDeviceReset();
  }
  void use_seed(int seed) {
    const std::string others = options_ && !options_->empty() ? *options_ + "," : "";
    setenv("CUDA_SIMULATOR", (others + "seed=" + std::to_string(seed)).c_str(), 1);
    cudaDeviceReset();
  }
  std::string message_of(const std::function<void()>& launch, cudaError_t expected) {
    testing::internal::CaptureStderr();
    launch();
    EXPECT_EQ(cudaDeviceSynchronize(), expected);
    return testing::internal::GetCapturedStderr();
  }
  std::optional<std::string> options_;  // where CUDA_SIMULATOR is set
};

__global__ void write_at(int* out, int index) {
  if (threadIdx.x == 5) out[index] = 1;
}

TEST_F(Fault, write_behind_an_allocation) {
  int* data = nullptr;
  ASSERT_EQ(cudaMalloc(&data, 40), cudaSuccess);
  write_at<<<1, 32>>>(data, 9);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const auto message = message_of([&] { write_at<<<1, 32>>>(data, 10); }, cudaErrorIllegalAddress);
  EXPECT_THAT(message, HasSubstr("0 bytes behind an allocation of 40"));
  EXPECT_THAT(message, HasSubstr("write_at"));
  EXPECT_THAT(message, HasSubstr("thread (5, 0, 0)"));
  EXPECT_THAT(message, HasSubstr("st.global.u32"));
}

TEST_F(Fault, write_before_an_allocation) {
  int* data = nullptr;
  ASSERT_EQ(cudaMalloc(&data, 40), cudaSuccess);
  message_of([&] { write_at<<<1, 32>>>(data, -1); }, cudaErrorIllegalAddress);
  EXPECT_EQ(cudaFree(data), cudaErrorIllegalAddress) << "a fault stays";
}

TEST_F(Fault, use_after_free) {
  int* data = nullptr;
  int* other = nullptr;
  ASSERT_EQ(cudaMalloc(&data, 40), cudaSuccess);
  ASSERT_EQ(cudaFree(data), cudaSuccess);
  ASSERT_EQ(cudaMalloc(&other, 40), cudaSuccess);
  message_of([&] { write_at<<<1, 32>>>(data, 0); }, cudaErrorIllegalAddress);
}

__global__ void read_vector(const float4* in, float* out) { out[0] = in[0].x + in[0].w; }

TEST_F(Fault, misaligned_vector) {
  float* data = nullptr;
  ASSERT_EQ(cudaMalloc(&data, 64), cudaSuccess);
  const auto message =
      message_of([&] { read_vector<<<1, 1>>>(reinterpret_cast<const float4*>(data + 1), data); },
                 cudaErrorMisalignedAddress);
  EXPECT_THAT(message, HasSubstr("expected a multiple of 16"));
}

__global__ void write_shared(int* out, int index) {
  extern __shared__ int shared[];
  shared[index] = 3;
  out[0] = shared[index];
}

TEST_F(Fault, write_behind_shared_memory) {
  int* data = nullptr;
  ASSERT_EQ(cudaMalloc(&data, 4), cudaSuccess);
  write_shared<<<1, 1, 64>>>(data, 15);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const auto message =
      message_of([&] { write_shared<<<1, 1, 64>>>(data, 16); }, cudaErrorIllegalAddress);
  EXPECT_THAT(message, HasSubstr("the block has 64"));
}

__global__ void barrier_of_too_few() {
  if (threadIdx.x < 32) asm volatile("bar.sync 3, 96;" ::: "memory");
}

TEST_F(Fault, barrier_that_is_never_complete) {
  const auto message = message_of([] { barrier_of_too_few<<<1, 64>>>(); }, cudaErrorLaunchTimeout);
  EXPECT_THAT(message, HasSubstr("deadlock"));
  EXPECT_THAT(message, HasSubstr("bar"));
}

__global__ void spin(volatile int* flag) {
  while (*flag == 0) {
    __nanosleep(20);
  }
}

TEST_F(Fault, flag_that_nobody_sets) {
  int* flag = nullptr;
  ASSERT_EQ(cudaMalloc(&flag, 4), cudaSuccess);
  ASSERT_EQ(cudaMemset(flag, 0, 4), cudaSuccess);
  message_of([&] { spin<<<1, 32>>>(flag); }, cudaErrorLaunchTimeout);
}

__global__ void shuffle_of_absent_lanes(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xff, threadIdx.x, 0);
}

TEST_F(Fault, lane_outside_of_its_member_mask) {
  int* data = nullptr;
  ASSERT_EQ(cudaMalloc(&data, 128), cudaSuccess);
  const auto message =
      message_of([&] { shuffle_of_absent_lanes<<<1, 32>>>(data); }, cudaErrorIllegalInstruction);
  EXPECT_THAT(message, HasSubstr("member mask"));
}

template <bool kBarrier>
__global__ void reverse(int* out) {
  __shared__ int values[256];
  values[threadIdx.x] = threadIdx.x;
  if (kBarrier) __syncthreads();
  out[threadIdx.x] = values[255 - threadIdx.x];
}

// How many of ten schedules give a wrong result.
template <bool kBarrier>
int wrong_schedules(const std::function<void(int)>& use_seed) {
  int wrong = 0;
  for (int seed = 1; seed <= 10; ++seed) {
    use_seed(seed);
    DeviceVector<int> out(256);
    reverse<kBarrier><<<1, 256>>>(out.data());
    const auto results = out.host();
    bool right = true;
    for (int i = 0; i < 256; ++i) right = right && results[i] == 255 - i;
    wrong += !right;
  }
  return wrong;
}

TEST_F(Fault, missing_barrier_shows_under_some_schedule) {
  const auto seed = [this](int s) { use_seed(s); };
  EXPECT_EQ(wrong_schedules<true>(seed), 0);
  EXPECT_GT(wrong_schedules<false>(seed), 0);
}

}  // namespace
}  // namespace sprocket::cuda_simulator

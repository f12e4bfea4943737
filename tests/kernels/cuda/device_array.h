// Device memory of a test, between guard bytes that nothing may touch.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstring>
#include <type_traits>
#include <vector>

#include "base/cuda_stream.h"

namespace sprocket::kernels::cuda {

template <class T>
class DeviceArray {
 public:
  // A NaN of every float format, or an index far out of range, until a kernel writes.
  explicit DeviceArray(int64_t count) : count_(count) {
    void* memory = nullptr;
    check_cuda(cudaMalloc(&memory, bytes() + 2 * kGuard), "cudaMalloc");
    memory_ = static_cast<char*>(memory);
    check_cuda(cudaMemset(memory_, kByte, bytes() + 2 * kGuard), "cudaMemset");
    finish();
  }
  explicit DeviceArray(const std::vector<T>& values)
      : DeviceArray(static_cast<int64_t>(values.size())) {
    upload(values);
  }
  ~DeviceArray() {
    check_guards();
    cudaFree(memory_);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* get() { return reinterpret_cast<T*>(memory_ + kGuard); }
  int64_t size() const { return count_; }

  void upload(const std::vector<T>& values) {
    ASSERT_EQ(static_cast<int64_t>(values.size()), count_);
    check_cuda(cudaMemcpy(get(), values.data(), bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
    finish();
  }
  // What is there when all work of the device is done.
  std::vector<T> download() {
    finish();
    std::vector<T> values(count_);
    check_cuda(cudaMemcpy(values.data(), get(), bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return values;
  }
  // How many elements from `first` on are as they were before any kernel wrote.
  int64_t untouched_from(int64_t first) {
    const std::vector<T> values = download();
    T fill;
    std::memset(static_cast<void*>(&fill), kByte, sizeof fill);
    int64_t count = 0;
    for (int64_t i = first; i < count_; ++i) {
      count += std::memcmp(&values[i], &fill, sizeof fill) == 0;
    }
    return count;
  }

 private:
  static constexpr int64_t kGuard = 256;
  // Smaller integers than indices are bits of floats, or memory that a kernel works in.
  static constexpr int kByte = std::is_integral_v<T> && sizeof(T) >= 4 ? 0xA5 : 0xFF;

  // cudaMemset returns at once, cudaMemcpy when the host's memory is free, and the streams of tests
  // do not wait for theirs.
  static void finish() { check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); }

  int64_t bytes() const { return count_ * static_cast<int64_t>(sizeof(T)); }
  void check_guards() {
    std::vector<unsigned char> guards(2 * kGuard);
    cudaDeviceSynchronize();
    cudaMemcpy(guards.data(), memory_, kGuard, cudaMemcpyDeviceToHost);
    cudaMemcpy(guards.data() + kGuard, memory_ + kGuard + bytes(), kGuard, cudaMemcpyDeviceToHost);
    for (const unsigned char byte : guards) {
      if (byte == kByte) continue;
      ADD_FAILURE() << "something wrote outside of an array of " << bytes() << " bytes";
      return;
    }
  }

  int64_t count_;
  char* memory_ = nullptr;
};

}  // namespace sprocket::kernels::cuda

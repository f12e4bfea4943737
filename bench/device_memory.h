// What the benchmarks of device code share: memory, numbers, and times between places of a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/cuda_stream.h"
#include "base/philox.h"

namespace sprocket::bench {

// The exit code for a machine without a device.
inline constexpr int kNoDevice = 77;

inline bool has_device() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}

// Standard normal numbers that repeat after a prime number of them, so that rows of tensors do not.
template <class V>
class NormalNumbers {
 public:
  explicit NormalNumbers(uint64_t sample) {
    std::vector<float> numbers(kPeriod);
    RandomStream(3, 0, sample, RandomPurpose::kTest).normal(numbers);
    values_ = std::vector<V>(numbers.begin(), numbers.end());
  }
  V operator[](int64_t index) const { return values_[index % kPeriod]; }
  const std::vector<V>& period() const { return values_; }

 private:
  static constexpr int64_t kPeriod = (int64_t{1} << 20) - 3;
  std::vector<V> values_;
};

// Device memory of `count` values; uninitialised, or with what it is made from.
template <class V>
class Memory {
 public:
  explicit Memory(int64_t count) : count_(count) {
    void* data = nullptr;
    check_cuda(cudaMalloc(&data, std::max<int64_t>(bytes(), 1)), "cudaMalloc");
    data_ = static_cast<V*>(data);
  }
  explicit Memory(const std::vector<V>& values) : Memory(static_cast<int64_t>(values.size())) {
    upload(values, 0, count_);
  }
  template <class Host>
  Memory(int64_t count, const NormalNumbers<Host>& numbers) : Memory(count) {
    static_assert(sizeof(Host) == sizeof(V));
    const auto period = static_cast<int64_t>(numbers.period().size());
    for (int64_t first = 0; first < count; first += period) {
      upload(numbers.period(), first, std::min(period, count - first));
    }
  }
  ~Memory() { cudaFree(data_); }
  Memory(Memory&& other) noexcept
      : count_(other.count_), data_(std::exchange(other.data_, nullptr)) {}
  Memory& operator=(Memory&&) = delete;

  V* get() const { return data_; }
  int64_t bytes() const { return count_ * static_cast<int64_t>(sizeof(V)); }

  // Waits for the device.
  std::vector<V> download(int64_t first, int64_t count) const {
    std::vector<V> values(count);
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    check_cuda(cudaMemcpy(values.data(), data_ + first, count * sizeof(V), cudaMemcpyDeviceToHost),
               "cudaMemcpy");
    return values;
  }
  std::vector<V> download() const { return download(0, count_); }

 private:
  template <class Host>
  void upload(const std::vector<Host>& values, int64_t first, int64_t count) {
    check_cuda(cudaMemcpy(data_ + first, values.data(), count * sizeof(V), cudaMemcpyHostToDevice),
               "cudaMemcpy");
    // The call returns when the host's memory is free, and our streams do not wait for its stream.
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }

  int64_t count_;
  V* data_ = nullptr;
};

// Times between marks in a stream, by CUDA events.
class DeviceClock {
 public:
  DeviceClock() = default;
  ~DeviceClock() {
    for (const cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  DeviceClock(const DeviceClock&) = delete;
  DeviceClock& operator=(const DeviceClock&) = delete;

  void mark(StreamView stream) {
    if (marks_ == events_.size()) {
      cudaEvent_t event = nullptr;
      check_cuda(cudaEventCreate(&event), "cudaEventCreate");
      events_.push_back(event);
    }
    check_cuda(cudaEventRecord(events_[marks_], static_cast<cudaStream_t>(stream.cuda_handle())),
               "cudaEventRecord");
    ++marks_;
  }

  // Waits for the last mark; the seconds between each two neighbours. Forgets the marks.
  std::vector<double> take_seconds() {
    std::vector<double> seconds;
    if (marks_ > 0) {
      check_cuda(cudaEventSynchronize(events_[marks_ - 1]), "cudaEventSynchronize");
    }
    for (size_t i = 1; i < marks_; ++i) {
      float milliseconds = 0;
      check_cuda(cudaEventElapsedTime(&milliseconds, events_[i - 1], events_[i]),
                 "cudaEventElapsedTime");
      seconds.push_back(milliseconds * 1e-3);
    }
    marks_ = 0;
    return seconds;
  }

 private:
  std::vector<cudaEvent_t> events_;
  size_t marks_ = 0;
};

}  // namespace sprocket::bench

// Where the buffers of a communicator's test bodies lie: in host memory, or on a device. A body
// fills and reads them through Values, so that one body serves every backend.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

#include "base/bfloat16.h"
#include "base/stream.h"
#include "parallel/comm/communicator.h"

namespace sprocket::comm::testing {

// Used by one rank's thread, or by all of them when it has no state. Failures of the device are
// thrown.
class TestMemory {
 public:
  virtual ~TestMemory() = default;
  // For the operations on its buffers.
  virtual StreamView stream() const = 0;
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;
  // On the stream, from and to host memory; both wait for it.
  virtual void write(void* memory, const void* from, size_t bytes) = 0;
  virtual void read(void* to, const void* memory, size_t bytes) = 0;

  // What a backend of such memory promises.
  virtual bool reduces(DType dtype) const = 0;
  virtual bool reduces_in_rank_order() const = 0;
  // Whether it finds out who is late, and that two ranks disagree about a message's length.
  virtual bool knows_its_peers() const = 0;
};

TestMemory& host_memory();

// A vector on the host and its buffer in a TestMemory, between guard bytes.
template <class T>
class Values {
 public:
  Values(TestMemory& memory, std::vector<T> values)
      : memory_(memory),
        count_(values.size()),
        data_(memory.allocate(bytes() + 2 * kGuardBytes)),
        host_(std::move(values)) {
    write();
  }
  Values(TestMemory& memory, size_t count, T value = T{})
      : Values(memory, std::vector<T>(count, value)) {}
  ~Values() { memory_.release(data_); }
  Values(const Values&) = delete;
  Values& operator=(const Values&) = delete;

  Buffer buffer() { return slice(0, static_cast<int64_t>(count_)); }
  Buffer slice(int64_t offset, int64_t count) {
    return {reinterpret_cast<T*>(static_cast<char*>(data_) + kGuardBytes) + offset, count, dtype()};
  }
  // What the buffer holds now; also that nobody wrote beside it.
  const std::vector<T>& read() {
    std::vector<unsigned char> all(bytes() + 2 * kGuardBytes);
    memory_.read(all.data(), data_, all.size());
    const auto guard = [](unsigned char byte) { return byte == kGuard; };
    EXPECT_TRUE(std::all_of(all.begin(), all.begin() + kGuardBytes, guard)) << "written before";
    EXPECT_TRUE(std::all_of(all.end() - kGuardBytes, all.end(), guard)) << "written behind";
    if (count_ > 0) std::memcpy(host_.data(), all.data() + kGuardBytes, bytes());
    return host_;
  }

 private:
  static constexpr size_t kGuardBytes = 256;
  static constexpr unsigned char kGuard = 0xA5;

  static constexpr DType dtype() {
    if constexpr (std::is_same_v<T, _Float16>) {
      return DType::kF16;
    } else {
      return kDTypeOf<T>;
    }
  }
  size_t bytes() const { return count_ * sizeof(T); }
  void write() {
    std::vector<unsigned char> all(bytes() + 2 * kGuardBytes, kGuard);
    if (count_ > 0) std::memcpy(all.data() + kGuardBytes, host_.data(), bytes());
    memory_.write(data_, all.data(), all.size());
  }

  TestMemory& memory_;
  const size_t count_;
  void* const data_;
  std::vector<T> host_;
};

}  // namespace sprocket::comm::testing

// What the tests of element-wise device kernels share: element types, inputs, and the comparison
// with the host's kernels.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/bfloat16.h"
#include "base/cuda_stream.h"
#include "base/philox.h"
#include "kernels/cuda/argument_checks.h"
#include "tests/kernels/cuda/device_array.h"

namespace sprocket::kernels::cuda {

using Doubles = std::vector<double>;

// The host's type of the bits of a device type.
template <class T>
struct HostElement;
template <>
struct HostElement<float> {
  using Type = float;
};
template <>
struct HostElement<__nv_bfloat16> {
  using Type = BFloat16;
};
template <>
struct HostElement<__half> {
  using Type = _Float16;
};
template <class T>
using HostOf = typename HostElement<T>::Type;

using DeviceElements = testing::Types<float, __nv_bfloat16, __half>;

template <class H, class V>
std::vector<H> converted(const std::vector<V>& values) {
  std::vector<H> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if constexpr (std::is_same_v<H, V>) {
      result[i] = values[i];
    } else {
      result[i] = static_cast<H>(static_cast<float>(values[i]));
    }
  }
  return result;
}

// Standard normal, exact in every device type.
inline Doubles normal_values(int64_t count, uint64_t sample) {
  std::vector<float> values(count);
  RandomStream(7, 0, sample, RandomPurpose::kTest).normal(values);
  for (float& value : values) {
    value = static_cast<float>(static_cast<_Float16>(static_cast<float>(BFloat16(value))));
    value = static_cast<float>(BFloat16(value));
  }
  return {values.begin(), values.end()};
}

// An array of a device type, filled with values that it holds exactly.
template <class T>
class Elements {
 public:
  // Not numbers, until a kernel writes.
  explicit Elements(int64_t count) : Elements(Doubles(count, std::nan(""))) {}
  explicit Elements(const Doubles& values) : array_(converted<HostOf<T>>(values)) {}
  T* get() { return reinterpret_cast<T*>(array_.get()); }
  std::vector<HostOf<T>> download() { return array_.download(); }
  Doubles doubles() { return converted<double>(download()); }

 private:
  DeviceArray<HostOf<T>> array_;
};

// Device memory of a call, exactly as large as it says that it needs; not numbers at first.
class WorkspaceMemory {
 public:
  explicit WorkspaceMemory(int64_t bytes)
      : bytes_(bytes), array_(std::vector<unsigned char>(bytes, 0xFF)) {}
  Workspace view() { return {array_.get(), bytes_}; }

 private:
  int64_t bytes_;
  DeviceArray<unsigned char> array_;
};

// What a result of type T is after it was computed in float.
template <class T>
Doubles stored(const std::vector<float>& values) {
  return converted<double>(converted<HostOf<T>>(values));
}

// The error of `found` is at most twice that of `reference`, a result of the same precision, in the
// largest element and in the mean; where the reference has none, it is below a rounding of float.
inline void expect_as_accurate(const Doubles& found, const Doubles& reference,
                               const Doubles& exact) {
  ASSERT_EQ(found.size(), exact.size());
  ASSERT_EQ(reference.size(), exact.size());
  double largest[2] = {0, 0}, squares[2] = {0, 0}, size = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    ASSERT_TRUE(std::isfinite(found[i])) << i;
    const double errors[2] = {std::abs(found[i] - exact[i]), std::abs(reference[i] - exact[i])};
    for (int k = 0; k < 2; ++k) {
      largest[k] = std::max(largest[k], errors[k]);
      squares[k] += errors[k] * errors[k];
    }
    size = std::max(size, std::abs(exact[i]));
  }
  EXPECT_LE(largest[0], std::max(2 * largest[1], largest[1] == 0 ? size * 0x1p-24 : 0.0));
  EXPECT_LE(squares[0], std::max(4 * squares[1], squares[1] == 0 ? size * size * 0x1p-48 : 0.0));
}

template <class H>
bool same_bits(const std::vector<H>& a, const std::vector<H>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(H)) == 0);
}

}  // namespace sprocket::kernels::cuda

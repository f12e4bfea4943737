// Values of the host as tensors on a device.
#pragma once

#include <cstring>
#include <span>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

namespace sprocket::parallel {

// [bytes] u8 of `device`. From pinned memory, so that nothing waits: the allocator keeps it until
// the copy has been made.
template <class T>
at::Tensor bytes_on(std::span<const T> values, const at::Device& device) {
  const auto bytes = static_cast<int64_t>(values.size_bytes());
  at::Tensor host =
      at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(device.is_cuda()));
  if (bytes > 0) std::memcpy(host.data_ptr(), values.data(), values.size_bytes());
  return host.to(device, at::kByte, /*non_blocking=*/true);
}

inline at::Tensor ints_on(std::span<const int32_t> values, const at::Device& device) {
  return bytes_on(values, device).view(at::kInt);
}
inline at::Tensor longs_on(std::span<const int64_t> values, const at::Device& device) {
  return bytes_on(values, device).view(at::kLong);
}
inline at::Tensor floats_on(std::span<const float> values, const at::Device& device) {
  return bytes_on(values, device).view(at::kFloat);
}

}  // namespace sprocket::parallel

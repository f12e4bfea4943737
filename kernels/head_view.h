// Views of attention's tensors, and the type that their sums are made in. For host and device code.
#pragma once

#include <cstdint>
#include <type_traits>

namespace sprocket::kernels {

template <class T>
using Accumulator =
    std::conditional_t<std::is_same_v<std::remove_const_t<T>, double>, double, float>;

// Element (b, row, h, d) is data[b * batch_stride + row * row_stride + h * head_stride + d].
template <class T>
struct HeadView {
  T* data = nullptr;
  int64_t batch_stride = 0;
  int64_t row_stride = 0;
  int64_t head_stride = 0;

  constexpr T* row(int64_t batch, int64_t row_index, int64_t head) const {
    return data + batch * batch_stride + row_index * row_stride + head * head_stride;
  }
};

// A view of contiguous [B, rows, H, D].
template <class T>
HeadView<T> contiguous_view(T* data, int64_t rows, int64_t heads, int64_t head_dim) {
  return {data, rows * heads * head_dim, heads * head_dim, head_dim};
}

}  // namespace sprocket::kernels

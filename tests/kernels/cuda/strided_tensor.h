// A [B, rows, H, D] tensor in device memory with room between its rows that nobody may touch: NaN
// that must not be read into a result, and that must be there afterwards.
#pragma once

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "kernels/cuda/segment_attention_problem.h"
#include "tests/kernels/cuda/device_array.h"

namespace sprocket::kernels::cuda {

template <class T>
class StridedTensor {
 public:
  // A pool has one row for all batches and heads.
  StridedTensor(const std::vector<T>& values, int batch, int64_t rows, int heads, int dim,
                bool pool = false)
      : batch_(pool ? 1 : batch), rows_(rows), heads_(pool ? 1 : heads), dim_(dim), pool_(pool) {
    host_.resize(batch_ * batch_stride());
    std::memset(static_cast<void*>(host_.data()), 0xff, host_.size() * sizeof(T));
    for_each_row([&](int64_t contiguous, int64_t strided) {
      std::copy_n(values.begin() + contiguous, dim_, host_.begin() + strided);
    });
    memory_.emplace(host_);
  }

  template <class U>
  DeviceRows<U> view() {
    return {memory_->get(), pool_ ? 0 : batch_stride(), row_stride(), pool_ ? 0 : head_stride()};
  }

  std::vector<T> contiguous() {
    const std::vector<T> found = memory_->download();
    std::vector<T> values(batch_ * rows_ * heads_ * dim_);
    std::vector<T> expected = host_;
    for_each_row([&](int64_t contiguous, int64_t strided) {
      std::copy_n(found.begin() + strided, dim_, values.begin() + contiguous);
      std::copy_n(found.begin() + strided, dim_, expected.begin() + strided);
    });
    EXPECT_EQ(std::memcmp(found.data(), expected.data(), found.size() * sizeof(T)), 0)
        << "something wrote between the rows of a tensor";
    return values;
  }

 private:
  int64_t row_stride() const { return dim_ + 16; }
  int64_t head_stride() const { return (rows_ + 2) * row_stride(); }
  int64_t batch_stride() const { return heads_ * head_stride() + 32; }

  template <class Visit>
  void for_each_row(const Visit& visit) const {
    for (int64_t b = 0; b < batch_; ++b) {
      for (int64_t row = 0; row < rows_; ++row) {
        for (int64_t h = 0; h < heads_; ++h) {
          visit(((b * rows_ + row) * heads_ + h) * dim_,
                b * batch_stride() + row * row_stride() + h * head_stride());
        }
      }
    }
  }

  int64_t batch_, rows_, heads_, dim_;
  bool pool_;
  std::vector<T> host_;
  std::optional<DeviceArray<T>> memory_;
};

}  // namespace sprocket::kernels::cuda

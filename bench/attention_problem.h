// One attention problem for the benchmarks: its data, and the segment attention kernel on it.
#pragma once

#include <cmath>
#include <cstdint>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/aligned_buffer.h"
#include "kernels/segment_attention.h"

namespace sprocket::bench {

struct AttentionShape {
  int length = 0;
  int heads = 1;
  int head_dim = 64;
  int block = 64;
  int kv_block = 0;  // 0: block
  int threads = 1;

  int blocks() const { return (length + block - 1) / block; }
  int kv_rows() const { return kv_block == 0 ? block : kv_block; }
  int kv_blocks() const { return (length + kv_rows() - 1) / kv_rows(); }
  int64_t elements() const { return int64_t{length} * heads * head_dim; }
};

// Q, K, V, dO [L, H, D] as a DiT leaves them, and all results.
template <class T>
class AttentionProblem {
 public:
  AttentionProblem(const AttentionShape& shape, kernels::SegmentTable table)
      : shape_(shape), table_(std::move(table)) {
    const int64_t size = shape.elements();
    for (std::vector<T>* input : {&q_, &k_, &v_, &dout_}) input->resize(size);
    for (std::vector<float>* result : {&out_, &dq_, &dk_, &dv_}) result->resize(size);
    lse_.resize(int64_t{shape.length} * shape.heads);
    delta_.resize(lse_.size());
    for (int i = 0; i <= shape.blocks(); ++i) {
      offsets_.push_back(std::min<int64_t>(shape.length, int64_t{i} * shape.block));
    }
    map_.kv_blocks = shape.kv_blocks();
    for (int64_t row = 0; row < shape.length; row += shape.kv_rows()) {
      const int64_t rows = std::min<int64_t>(shape.kv_rows(), shape.length - row);
      map_.blocks.push_back({0, static_cast<int32_t>(rows), row, 0});
    }
    kv_ = {view(static_cast<const T*>(k_.data())), view(static_cast<const T*>(v_.data()))};
    dkv_ = {view(dk_.data()), view(dv_.data())};
    // Both directions use the same memory, one after the other.
    workspace_.reserve(std::max(workspace_bytes(kernels::Direction::kForward),
                                workspace_bytes(kernels::Direction::kBackward)));
  }
  AttentionProblem(const AttentionProblem&) = delete;
  AttentionProblem& operator=(const AttentionProblem&) = delete;

  void fill_randomly() {
    int stream = 1;
    for (std::vector<T>* input : {&q_, &k_, &v_, &dout_}) {
      std::vector<float> values(input->size());
      RandomStream(11, 0, stream++, RandomPurpose::kTest).normal(values);
      for (size_t i = 0; i < values.size(); ++i) (*input)[i] = T(values[i]);
    }
  }

  // fp32 in the order Q, K, V, dO.
  void load(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    for (std::vector<T>* input : {&q_, &k_, &v_, &dout_}) {
      std::vector<float> values(input->size());
      file.read(reinterpret_cast<char*>(values.data()), values.size() * sizeof(float));
      for (size_t i = 0; i < values.size(); ++i) (*input)[i] = T(values[i]);
    }
    SPROCKET_CHECK(file.good(), "{} has fewer elements than the case", path);
  }

  // fp32 in the order O, dQ, dK, dV.
  void save(const std::string& path) const {
    std::ofstream file(path, std::ios::binary);
    for (const std::vector<float>* result : {&out_, &dq_, &dk_, &dv_}) {
      file.write(reinterpret_cast<const char*>(result->data()), result->size() * sizeof(float));
    }
    SPROCKET_CHECK(file.good(), "cannot write {}", path);
  }

  void forward() {
    kernels::segment_attention_forward<T>(problem(), view(out_.data()), lse_.data(), false,
                                          workspace(kernels::Direction::kForward));
  }

  // Delta and all gradients.
  void backward() {
    const int64_t size = shape_.elements();
#pragma omp parallel for num_threads(shape_.threads) schedule(static)
    for (int64_t i = 0; i < size; ++i) dq_[i] = dk_[i] = dv_[i] = 0;
    kernels::segment_attention_delta<T>(
        view(static_cast<const float*>(out_.data())), view(static_cast<const T*>(dout_.data())), 1,
        shape_.length, shape_.heads, shape_.head_dim, delta_.data(), shape_.threads);
    kernels::segment_attention_backward<T>(problem(), view(static_cast<const T*>(dout_.data())),
                                           lse_.data(), delta_.data(), view(dq_.data()), {&dkv_, 1},
                                           workspace(kernels::Direction::kBackward));
  }

  int64_t workspace_bytes(kernels::Direction direction) const {
    return kernels::segment_attention_workspace_bytes(problem(), direction);
  }

  // Of a forward over the listed pairs; a backward has 2.5 times as many.
  double forward_gflop() const {
    double pairs = 0;
    for (int64_t row = 0; row < table_.rows(); ++row) {
      const int64_t block = row % shape_.blocks();
      int64_t keys = 0;
      for (int64_t i = table_.row_offsets[row]; i < table_.row_offsets[row + 1]; ++i) {
        keys += map_.blocks[table_.kv_block[i]].rows;
      }
      pairs +=
          static_cast<double>(keys) * static_cast<double>(offsets_[block + 1] - offsets_[block]);
    }
    return 4e-9 * shape_.head_dim * pairs;
  }

  const AttentionShape& shape() const { return shape_; }
  const kernels::SegmentTable& table() const { return table_; }

 private:
  template <class U>
  kernels::HeadView<U> view(U* data) const {
    return kernels::contiguous_view(data, shape_.length, shape_.heads, shape_.head_dim);
  }

  kernels::SegmentAttentionProblem<T> problem() const {
    return {shape_.head_dim, 1 / std::sqrt(shape_.head_dim),
            view(q_.data()), offsets_,
            {&kv_, 1},       &table_,
            &map_,           shape_.threads};
  }

  std::span<std::byte> workspace(kernels::Direction direction) const {
    return {workspace_.data(), static_cast<size_t>(workspace_bytes(direction))};
  }

  AttentionShape shape_;
  kernels::SegmentTable table_;
  kernels::KvBlockMap map_;
  std::vector<int64_t> offsets_;
  std::vector<T> q_, k_, v_, dout_;
  std::vector<float> out_, lse_, delta_, dq_, dk_, dv_;
  kernels::KvBuffer<T> kv_;
  kernels::KvGradBuffer<T> dkv_;
  kernels::AlignedBuffer<std::byte> workspace_;
};

}  // namespace sprocket::bench

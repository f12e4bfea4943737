// A segment attention problem with its data, and an explicit-softmax reference for it.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "base/philox.h"
#include "kernels/segment_attention.h"

namespace sprocket::kernels::testing {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Shape {
  int batch = 1;
  int heads = 2;
  int head_dim = 64;
  std::vector<int> query_rows;
  std::vector<int> kv_rows;
  double density = 0.5;
  bool pools = false;      // one pool of rows per (batch, head, block), otherwise two buffers
  double logit_scale = 1;  // multiplies q
  bool empty_rows = true;  // the table's first row of each head lists nothing
  bool ragged = false;     // query blocks use different numbers of their rows
  uint64_t seed = 1;
};

// A workspace of exactly the size asked for, filled with what is no number, between guard bytes.
class GuardedWorkspace {
 public:
  explicit GuardedWorkspace(int64_t bytes)
      : size_(bytes), memory_(2 * kGuard + bytes, kFill), before_(memory_) {}

  std::span<std::byte> span() { return {memory_.data() + kGuard, static_cast<size_t>(size_)}; }
  bool guards_hold() const {
    return std::equal(memory_.begin(), memory_.begin() + kGuard, before_.begin()) &&
           std::equal(memory_.end() - kGuard, memory_.end(), before_.end() - kGuard);
  }

 private:
  static constexpr int64_t kGuard = 256;
  static constexpr std::byte kFill{0xff};
  int64_t size_;
  std::vector<std::byte> memory_, before_;
};

inline std::vector<float> normals(int64_t count, uint64_t seed, int stream) {
  std::vector<float> values(count);
  RandomStream(seed, 0, stream, RandomPurpose::kTest).normal(values);
  return values;
}

template <class T>
std::vector<T> rounded(const std::vector<float>& values, double factor = 1) {
  std::vector<T> result;
  result.reserve(values.size());
  for (float value : values) result.push_back(T(static_cast<float>(value * factor)));
  return result;
}

template <class T>
double to_double(T value) {
  if constexpr (std::is_same_v<T, BFloat16>)
    return static_cast<float>(value);
  else
    return value;
}

template <class A>
struct Results {
  std::vector<A> out, lse, delta, dq;
  std::vector<std::vector<A>> dk, dv;  // by buffer
};

template <class T>
class Case {
 public:
  using A = Accumulator<T>;

  explicit Case(const Shape& shape) : shape(shape) {
    query_offsets = {0};
    for (int rows : shape.query_rows) query_offsets.push_back(query_offsets.back() + rows);
    make_table();
    make_map();
    if (shape.ragged) make_query_rows();
    const int64_t size = shape.batch * queries() * row_size();
    q = rounded<T>(normals(size, shape.seed, 1), shape.logit_scale);
    dout = rounded<T>(normals(size, shape.seed, 2));
    for (size_t i = 0; i < buffer_rows.size(); ++i) {
      const int64_t values = buffer_size(i);
      k.push_back(rounded<T>(normals(values, shape.seed, 3 + 2 * i)));
      v.push_back(rounded<T>(normals(values, shape.seed, 4 + 2 * i)));
    }
  }

  int64_t queries() const { return query_offsets.back(); }
  int64_t row_size() const { return int64_t{shape.heads} * shape.head_dim; }
  int64_t heads() const { return int64_t{shape.batch} * shape.heads; }
  double scale() const { return 1 / std::sqrt(shape.head_dim); }

  template <class U>
  HeadView<U> query_view(U* data) const {
    return contiguous_view(data, queries(), shape.heads, shape.head_dim);
  }
  template <class U>
  HeadView<U> buffer_view(U* data, size_t buffer) const {
    if (shape.pools) return {data, 0, shape.head_dim, 0};
    return contiguous_view(data, buffer_rows[buffer], shape.heads, shape.head_dim);
  }
  int64_t buffer_size(size_t buffer) const {
    if (shape.pools) return buffer_rows[buffer] * shape.head_dim;
    return shape.batch * buffer_rows[buffer] * row_size();
  }

  Results<A> zeros() const {
    Results<A> r;
    r.out.assign(q.size(), A(0));
    r.dq.assign(q.size(), A(0));
    r.lse.assign(heads() * queries(), A(-kInfinity));
    r.delta.assign(heads() * queries(), A(0));
    for (size_t i = 0; i < k.size(); ++i) {
      r.dk.emplace_back(k[i].size(), A(0));
      r.dv.emplace_back(k[i].size(), A(0));
    }
    return r;
  }

  std::vector<KvBuffer<T>> buffers() const {
    std::vector<KvBuffer<T>> result;
    for (size_t i = 0; i < k.size(); ++i) {
      result.push_back({buffer_view(k[i].data(), i), buffer_view(v[i].data(), i)});
    }
    return result;
  }

  void forward(Results<A>& r, const SegmentTable& table, bool accumulate, int threads) const {
    const auto kv = buffers();
    const auto call = problem(kv, table, threads);
    GuardedWorkspace workspace(segment_attention_workspace_bytes(call, Direction::kForward));
    segment_attention_forward<T>(call, query_view(r.out.data()), r.lse.data(), accumulate,
                                 workspace.span());
    EXPECT_TRUE(workspace.guards_hold());
  }

  void find_delta(Results<A>& r, int threads) const {
    segment_attention_delta<T>(query_view(static_cast<const A*>(r.out.data())),
                               query_view(dout.data()), shape.batch, queries(), shape.heads,
                               shape.head_dim, r.delta.data(), threads);
  }

  void backward(Results<A>& r, const SegmentTable& table, int threads) const {
    const auto kv = buffers();
    std::vector<KvGradBuffer<T>> dkv;
    for (size_t i = 0; i < k.size(); ++i) {
      dkv.push_back({buffer_view(r.dk[i].data(), i), buffer_view(r.dv[i].data(), i)});
    }
    const auto call = problem(kv, table, threads);
    GuardedWorkspace workspace(segment_attention_workspace_bytes(call, Direction::kBackward));
    segment_attention_backward<T>(call, query_view(dout.data()), r.lse.data(), r.delta.data(),
                                  query_view(r.dq.data()), dkv, workspace.span());
    EXPECT_TRUE(workspace.guards_hold());
  }

  Results<A> run(int threads = 1) const {
    Results<A> r = zeros();
    forward(r, table, false, threads);
    find_delta(r, threads);
    backward(r, table, threads);
    return r;
  }

  // Softmax over an explicit list of keys, in arithmetic of Real; `round` stands for the storage of
  // weights (P and dS) in a narrow type.
  template <class Real, class Round>
  Results<Real> reference(Round round) const;
  Results<double> reference() const {
    return reference<double>([](double x) { return x; });
  }

  SegmentAttentionProblem<T> problem(const std::vector<KvBuffer<T>>& kv, const SegmentTable& table,
                                     int threads) const {
    return {shape.head_dim, scale(), query_view(q.data()), query_offsets, kv, &table,
            &map,           threads, query_rows,           computed_heads};
  }

  Shape shape;
  // Rows of a query block that take part.
  int64_t rows_used(int64_t batch_head, int block) const {
    return query_rows.empty() ? shape.query_rows[block]
                              : query_rows[batch_head * table.query_blocks + block];
  }

  std::vector<int64_t> query_offsets;
  std::vector<int32_t> query_rows;
  std::optional<HeadRange> computed_heads;
  SegmentTable table;
  KvBlockMap map;
  std::vector<int64_t> buffer_rows;
  std::vector<T> q, dout;
  std::vector<std::vector<T>> k, v;

 private:
  void make_table() {
    const int query_blocks = static_cast<int>(shape.query_rows.size());
    const int kv_blocks = static_cast<int>(shape.kv_rows.size());
    table = {shape.batch, shape.heads, query_blocks, kv_blocks, {0}, {}};
    const RandomStream random(shape.seed, 1, 0, RandomPurpose::kTest);
    uint64_t index = 0;
    for (int64_t row = 0; row < table.rows(); ++row) {
      for (int block = 0; block < kv_blocks; ++block) {
        const bool listed = random.uniform(index++) < shape.density;
        if (listed && !(shape.empty_rows && row % query_blocks == 0)) {
          table.kv_block.push_back(block);
        }
      }
      table.row_offsets.push_back(static_cast<int64_t>(table.kv_block.size()));
    }
  }

  // All rows, none, and whatever lies between.
  void make_query_rows() {
    const RandomStream random(shape.seed, 2, 0, RandomPurpose::kTest);
    for (int64_t row = 0; row < table.rows(); ++row) {
      const int rows = shape.query_rows[row % table.query_blocks];
      query_rows.push_back(row == 0   ? 0
                           : row == 1 ? rows
                                      : static_cast<int>(random.uniform(row) * (rows + 1)));
    }
  }

  // Block 1 is not available in this pass; every third block stands for two tokens a row.
  void make_map() {
    const int kv_blocks = static_cast<int>(shape.kv_rows.size());
    map = {kv_blocks, shape.pools, {}};
    buffer_rows.assign(shape.pools ? 1 : 2, 3);  // rows before the first block, used by none
    for (int64_t head = 0; head < (shape.pools ? heads() : 1); ++head) {
      for (int block = 0; block < kv_blocks; ++block) {
        const int buffer = shape.pools ? 0 : block % 2;
        const int rows = block == 1 ? 0 : shape.kv_rows[block];
        const float bias = block % 3 == 2 ? std::log(2.0f) : 0;
        map.blocks.push_back({buffer, rows, buffer_rows[buffer], bias});
        buffer_rows[buffer] += rows;
      }
    }
  }
};

template <class T>
template <class Real, class Round>
Results<Real> Case<T>::reference(Round round) const {
  Results<Real> r;
  r.out.assign(q.size(), 0);
  r.dq.assign(q.size(), 0);
  r.lse.assign(heads() * queries(), -std::numeric_limits<Real>::infinity());
  r.delta.assign(r.lse.size(), 0);
  for (size_t i = 0; i < k.size(); ++i) {
    r.dk.emplace_back(k[i].size(), 0);
    r.dv.emplace_back(k[i].size(), 0);
  }
  const auto real = [](T value) { return static_cast<Real>(to_double(value)); };
  const int dim = shape.head_dim;
  const Real scaling = static_cast<Real>(scale());
  struct Key {
    int buffer;
    int64_t at;
    double bias;
  };
  for (int64_t bh = 0; bh < heads(); ++bh) {
    const int b = static_cast<int>(bh / shape.heads), h = static_cast<int>(bh % shape.heads);
    for (int block = 0; block < table.query_blocks; ++block) {
      std::vector<Key> keys;
      for (int id : table.row(b, h, block)) {
        const KvBlock& kv = map.at(bh, id);
        for (int i = 0; i < kv.rows; ++i) {
          const T* const base = k[kv.buffer].data();
          keys.push_back({kv.buffer,
                          buffer_view(base, kv.buffer).row(b, kv.first_row + i, h) - base,
                          kv.bias});
        }
      }
      if (keys.empty()) continue;
      const int64_t first = query_offsets[block];
      for (int64_t row = first; row < first + rows_used(bh, block); ++row) {
        const int64_t at = (b * queries() + row) * row_size() + h * dim;
        std::vector<Real> p(keys.size());
        Real maximum = -std::numeric_limits<Real>::infinity(), sum = 0;
        for (size_t j = 0; j < keys.size(); ++j) {
          Real dot = 0;
          for (int d = 0; d < dim; ++d)
            dot += real(q[at + d]) * real(k[keys[j].buffer][keys[j].at + d]);
          p[j] = scaling * dot + static_cast<Real>(keys[j].bias);
          maximum = std::max(maximum, p[j]);
        }
        for (Real& x : p) sum += x = std::exp(x - maximum);
        for (size_t j = 0; j < keys.size(); ++j) {
          p[j] /= sum;
          const T* value = v[keys[j].buffer].data() + keys[j].at;
          for (int d = 0; d < dim; ++d) r.out[at + d] += round(p[j]) * real(value[d]);
        }
        const int64_t index = bh * queries() + row;
        r.lse[index] = maximum + std::log(sum);
        for (int d = 0; d < dim; ++d) r.delta[index] += real(dout[at + d]) * r.out[at + d];
        for (size_t j = 0; j < keys.size(); ++j) {
          const T* key = k[keys[j].buffer].data() + keys[j].at;
          const T* value = v[keys[j].buffer].data() + keys[j].at;
          Real dp = 0;
          for (int d = 0; d < dim; ++d) dp += real(dout[at + d]) * real(value[d]);
          const Real ds = round(scaling * p[j] * (dp - r.delta[index]));
          Real* dk = r.dk[keys[j].buffer].data() + keys[j].at;
          Real* dv = r.dv[keys[j].buffer].data() + keys[j].at;
          for (int d = 0; d < dim; ++d) {
            r.dq[at + d] += ds * real(key[d]);
            dk[d] += ds * real(q[at + d]);
            dv[d] += round(p[j]) * real(dout[at + d]);
          }
        }
      }
    }
  }
  return r;
}

}  // namespace sprocket::kernels::testing

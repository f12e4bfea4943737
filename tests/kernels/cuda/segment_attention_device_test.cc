// The device kernels against the explicit softmax of the CPU kernel's tests, in fp64.
#include "kernels/cuda/segment_attention.h"

#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>

#include "base/cuda_stream.h"
#include "base/error.h"
#include "tests/kernels/cuda/strided_tensor.h"
#include "tests/kernels/segment_attention_fixture.h"

namespace sprocket::kernels::cuda {
namespace {

using kernels::testing::Case;
using kernels::testing::kInfinity;
using kernels::testing::Results;
using kernels::testing::Shape;

struct Half {
  uint16_t bits = 0;
  Half() = default;
  explicit Half(float value) : bits(__half_as_ushort(__float2half_rn(value))) {}
  operator float() const { return __half2float(__ushort_as_half(bits)); }
};

template <class T>
constexpr Element kElementOf = std::is_same_v<T, Half> ? Element::kFloat16 : Element::kBFloat16;

// Of the device that the test runs on.
KernelFamily family_of_device() {
  int device = 0, major = 0, minor = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
             "cudaDeviceGetAttribute");
  check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
             "cudaDeviceGetAttribute");
  return kernel_family(major, minor);
}

template <class T>
struct Buffer {
  StridedTensor<T> k, v;
  StridedTensor<float> dk, dv;
};

// A case on the device. Results accumulate until they are read.
template <class T>
class DeviceCase {
 public:
  explicit DeviceCase(const Case<T>& c)
      : c_(c),
        q_(query_tensor(c.q)),
        dout_(query_tensor(c.dout)),
        out_(query_tensor(std::vector<float>(c.q.size(), 0))),
        rounded_out_(query_tensor(std::vector<T>(c.q.size(), T(7.0f)))),
        dq_(query_tensor(std::vector<float>(c.q.size(), 0))),
        lse_(std::vector<float>(c.heads() * c.queries(), -kInfinity)),
        delta_(std::vector<float>(c.heads() * c.queries(), 0)),
        query_offsets_(narrow(c.query_offsets)),
        query_rows_(c.query_rows),
        row_offsets_(narrow(c.table.row_offsets)),
        kv_block_(c.table.kv_block) {
    for (size_t i = 0; i < c.k.size(); ++i) {
      const std::vector<float> zeros(c.k[i].size(), 0);
      buffers_.emplace_back(new Buffer<T>{kv_tensor(c.k[i], i), kv_tensor(c.v[i], i),
                                          kv_tensor(zeros, i), kv_tensor(zeros, i)});
    }
    use_map(c.map);
    make_inverse();
  }

  void use_map(const KvBlockMap& map) {
    std::vector<DeviceKvBlock> blocks;
    for (const KvBlock& block : map.blocks) {
      blocks.push_back({block.buffer, block.rows, block.first_row, static_cast<float>(block.bias)});
    }
    blocks_ = std::make_unique<DeviceArray<DeviceKvBlock>>(blocks);
  }

  SegmentAttentionProblem problem() {
    SegmentAttentionProblem p;
    p.family = family_of_device();
    p.element = kElementOf<T>;
    p.head_dim = c_.shape.head_dim;
    p.scale = static_cast<float>(c_.scale());
    p.table = {c_.table.batch,
               c_.table.heads,
               c_.table.query_blocks,
               c_.table.kv_blocks,
               static_cast<int64_t>(c_.table.kv_block.size()),
               row_offsets_.get(),
               kv_block_.get()};
    p.map = {c_.map.per_head, blocks_->get()};
    p.first_head = 0;
    p.last_head = static_cast<int>(c_.heads());
    if (c_.computed_heads) {
      p.first_head = static_cast<int>(c_.computed_heads->first);
      p.last_head = static_cast<int>(c_.computed_heads->last);
    }
    p.queries = c_.queries();
    p.query_offsets = query_offsets_.get();
    p.query_rows = c_.query_rows.empty() ? nullptr : query_rows_.get();
    p.max_query_rows = p.max_kv_rows = 0;
    for (int64_t row = 0; row < c_.table.rows(); ++row) {
      const int block = static_cast<int>(row % c_.table.query_blocks);
      p.max_query_rows =
          std::max<int>(p.max_query_rows, c_.rows_used(row / c_.table.query_blocks, block));
      p.max_row_pairs =
          std::max<int>(p.max_row_pairs, c_.table.row_offsets[row + 1] - c_.table.row_offsets[row]);
    }
    for (const KvBlock& block : c_.map.blocks) p.max_kv_rows = std::max(p.max_kv_rows, block.rows);
    p.q = q_.template view<const void>();
    p.kv_buffers = static_cast<int>(buffers_.size());
    for (size_t i = 0; i < buffers_.size(); ++i) {
      p.kv[i] = {buffers_[i]->k.template view<const void>(),
                 buffers_[i]->v.template view<const void>()};
    }
    return p;
  }

  void forward(bool accumulate) {
    segment_attention_forward(
        problem(), {out_.template view<void>(), OutputType::kFloat32, lse_.get(), accumulate},
        stream_.view());
  }

  void forward_rounded() {
    segment_attention_forward(
        problem(), {rounded_out_.template view<void>(), OutputType::kElement, lse_.get(), false},
        stream_.view());
  }

  void find_delta(OutputType type = OutputType::kFloat32) {
    segment_attention_delta(
        {kElementOf<T>, type, c_.shape.batch, c_.shape.heads, c_.shape.head_dim, c_.queries(),
         type == OutputType::kFloat32 ? out_.template view<const void>()
                                      : rounded_out_.template view<const void>(),
         dout_.template view<const void>(), delta_.get()},
        stream_.view());
  }

  void backward(int64_t wanted_bytes = int64_t{1} << 30) {
    const SegmentAttentionProblem p = problem();
    const SegmentAttentionBackwardPlan plan = plan_segment_attention_backward(p, wanted_bytes);
    // As NaN as the element type has it.
    DeviceArray<uint16_t> workspace(std::vector<uint16_t>(plan.workspace_bytes / 2, 0xffff));
    SegmentAttentionGradients gradients;
    gradients.inverse = {column_offsets_->get(), query_block_->get(), pair_->get()};
    gradients.dout = dout_.template view<const void>();
    gradients.lse = lse_.get();
    gradients.delta = delta_.get();
    gradients.dq = dq_.template view<float>();
    for (size_t i = 0; i < buffers_.size(); ++i) {
      gradients.dkv[i] = {buffers_[i]->dk.template view<float>(),
                          buffers_[i]->dv.template view<float>()};
    }
    segment_attention_backward(p, gradients, plan, workspace.get(), stream_.view());
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }

  Results<float> results() {
    Results<float> r;
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    r.out = out_.contiguous();
    r.lse = lse_.download();
    r.delta = delta_.download();
    r.dq = dq_.contiguous();
    for (auto& buffer : buffers_) {
      r.dk.push_back(buffer->dk.contiguous());
      r.dv.push_back(buffer->dv.contiguous());
    }
    return r;
  }

  std::vector<T> rounded_out() { return rounded_out_.contiguous(); }

  Results<float> run() {
    forward(false);
    find_delta();
    backward();
    return results();
  }

 private:
  template <class U>
  static std::vector<int32_t> narrow(const std::vector<U>& values) {
    return {values.begin(), values.end()};
  }
  template <class U>
  StridedTensor<U> query_tensor(const std::vector<U>& values) const {
    return {values, c_.shape.batch, c_.queries(), c_.shape.heads, c_.shape.head_dim};
  }
  template <class U>
  StridedTensor<U> kv_tensor(const std::vector<U>& values, size_t i) const {
    return {values,         c_.shape.batch,    c_.buffer_rows[i],
            c_.shape.heads, c_.shape.head_dim, c_.shape.pools};
  }

  void make_inverse() {
    const SegmentTable& table = c_.table;
    std::vector<int32_t> offsets{0}, blocks, pairs;
    for (int64_t head = 0; head < c_.heads(); ++head) {
      for (int id = 0; id < table.kv_blocks; ++id) {
        for (int block = 0; block < table.query_blocks; ++block) {
          const int64_t row = head * table.query_blocks + block;
          for (int64_t i = table.row_offsets[row]; i < table.row_offsets[row + 1]; ++i) {
            if (table.kv_block[i] != id) continue;
            blocks.push_back(block);
            pairs.push_back(static_cast<int32_t>(i));
          }
        }
        offsets.push_back(static_cast<int32_t>(pairs.size()));
      }
    }
    column_offsets_ = std::make_unique<DeviceArray<int32_t>>(offsets);
    query_block_ = std::make_unique<DeviceArray<int32_t>>(blocks);
    pair_ = std::make_unique<DeviceArray<int32_t>>(pairs);
  }

  Case<T> c_;
  CudaStream stream_;
  StridedTensor<T> q_, dout_;
  StridedTensor<float> out_;
  StridedTensor<T> rounded_out_;
  StridedTensor<float> dq_;
  DeviceArray<float> lse_, delta_;
  DeviceArray<int32_t> query_offsets_, query_rows_, row_offsets_, kv_block_;
  std::unique_ptr<DeviceArray<int32_t>> column_offsets_, query_block_, pair_;
  std::unique_ptr<DeviceArray<DeviceKvBlock>> blocks_;
  std::vector<std::unique_ptr<Buffer<T>>> buffers_;
};

// Visits every tensor of the results: name, ours, theirs.
template <class A, class B, class Visit>
void for_each_tensor(const Results<A>& a, const Results<B>& b, Visit visit) {
  visit("out", a.out, b.out);
  visit("lse", a.lse, b.lse);
  visit("delta", a.delta, b.delta);
  visit("dq", a.dq, b.dq);
  for (size_t i = 0; i < a.dk.size(); ++i) {
    visit("dk" + std::to_string(i), a.dk[i], b.dk[i]);
    visit("dv" + std::to_string(i), a.dv[i], b.dv[i]);
  }
}

void expect_identical(const Results<float>& a, const Results<float>& b) {
  for_each_tensor(a, b, [](const std::string& name, const auto& x, const auto& y) {
    EXPECT_TRUE(x == y) << name;
  });
}

// Relative L2 error; -inf must meet -inf.
template <class A>
double error_of(const std::vector<A>& values, const std::vector<double>& exact) {
  double difference = 0, magnitude = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] == -kInfinity && exact[i] == -kInfinity) continue;
    difference += std::pow(double{values[i]} - exact[i], 2);
    magnitude += std::pow(exact[i], 2);
  }
  return magnitude == 0 ? std::sqrt(difference) : std::sqrt(difference / magnitude);
}

// The error against fp64 is at most twice that of plain code which rounds the same things; an ulp
// where that code happens to be exact.
template <class T>
void expect_as_exact_as_plain_code(const Results<float>& ours, const Case<T>& c) {
  const Results<double> exact = c.reference();
  const Results<float> plain =
      c.template reference<float>([](float x) { return static_cast<float>(T(x)); });
  std::vector<double> bounds;
  for_each_tensor(plain, exact, [&](const std::string&, const auto& a, const auto& b) {
    bounds.push_back(std::max(2 * error_of(a, b), 0x1p-23));
  });
  size_t i = 0;
  for_each_tensor(ours, exact, [&](const std::string& name, const auto& a, const auto& b) {
    EXPECT_LE(error_of(a, b), bounds[i++]) << name;
  });
}

std::string describe(const Shape& s) {
  return "head_dim " + std::to_string(s.head_dim) + ", " + std::to_string(s.query_rows.size()) +
         " query blocks, " + std::to_string(s.kv_rows.size()) + " KV blocks, batch " +
         std::to_string(s.batch) + ", logit scale " + std::to_string(s.logit_scale);
}

template <class T>
void expect_right(const Shape& shape) {
  SCOPED_TRACE(describe(shape));
  const Case<T> c(shape);
  expect_as_exact_as_plain_code(DeviceCase<T>(c).run(), c);
}

TEST(SegmentAttentionDevice, WholeBlocks) {
  expect_right<BFloat16>({1, 1, 64, {64, 64}, {64, 64, 64}, 1.0, false, 1, false});
  expect_right<BFloat16>({1, 1, 128, {64, 64}, {64, 64, 64}, 0.7, false, 1, false});
  expect_right<Half>({1, 1, 64, {64}, {64, 64}, 1.0, false, 1, false});
  expect_right<Half>({1, 1, 128, {64}, {64, 64}, 1.0, false, 1, false});
}

TEST(SegmentAttentionDevice, PartialBlocks) {
  expect_right<BFloat16>({1, 2, 64, {64, 1, 33, 17}, {64, 7, 1, 63, 40, 0, 18}, 0.7});
  expect_right<BFloat16>({3, 1, 128, {20, 64}, {64, 7, 33}, 0.8});
  expect_right<Half>({1, 1, 128, {9, 63}, {31, 1, 64, 15, 16, 17}, 0.8});
  expect_right<Half>({2, 1, 64, {48, 5, 64}, {64, 7, 31}, 0.8});
}

TEST(SegmentAttentionDevice, BlocksOf128Rows) {
  expect_right<BFloat16>({1, 1, 64, {128, 100}, {16, 32, 64, 128, 1, 65}, 0.8});
  expect_right<BFloat16>({1, 1, 128, {128, 65}, {128, 127, 64}, 1.0, false, 1, false});
  expect_right<Half>({1, 1, 64, {127}, {128, 66}, 1.0, false, 1, false});
}

TEST(SegmentAttentionDevice, SmallQueryBlocks) {
  expect_right<BFloat16>({1, 2, 64, {32, 16, 1}, {64, 7, 33}, 0.8});
  expect_right<BFloat16>({2, 1, 128, {30, 32}, {64, 128, 33}, 0.8});
}

TEST(SegmentAttentionDevice, RowsInPoolsThatDifferByHead) {
  expect_right<BFloat16>({2, 2, 64, {64, 48, 9}, {64, 7, 33, 50}, 0.6, true});
  expect_right<Half>({1, 2, 128, {64, 9}, {64, 7, 33, 50}, 0.6, true});
}

TEST(SegmentAttentionDevice, SomeRowsOfQueryBlocks) {
  expect_right<BFloat16>(
      {1, 2, 64, {64, 64, 128, 33, 64}, {64, 64, 16, 5}, 0.7, false, 1, true, true});
  expect_right<BFloat16>({2, 1, 128, {64, 31, 64}, {64, 60}, 1.0, true, 1, false, true});
}

// As many rows as a half tile, of blocks of 64.
TEST(SegmentAttentionDevice, HalfOfTheRowsOfQueryBlocks) {
  for (const int dim : {64, 128}) {
    Case<BFloat16> c({1, 2, dim, {64, 64, 50}, {64, 64, 16, 5}, 0.8, false, 1, true, true});
    for (int32_t& rows : c.query_rows) rows = std::min(rows, 32);
    expect_as_exact_as_plain_code(DeviceCase<BFloat16>(c).run(), c);
  }
}

// Query blocks that share a thread block: lists that have little, or nothing, in common.
TEST(SegmentAttentionDevice, NeighboursWithDifferentLists) {
  const std::vector<int> whole(12, 64);
  expect_right<BFloat16>({1, 1, 64, {64, 64, 64}, whole, 0.4, false, 1, false});
  expect_right<BFloat16>({1, 1, 128, {32, 30, 32, 32, 7}, {64, 64, 20, 64, 64, 128, 64}, 0.4});
  for (const int rows : {32, 64}) {
    Case<BFloat16> c({1, 1, 64, {rows, rows, rows, rows}, whole, 0.0});
    c.table.row_offsets = {0, 6, 11, 11, 12};
    c.table.kv_block = {6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 11};
    expect_as_exact_as_plain_code(DeviceCase<BFloat16>(c).run(), c);
  }
}

// What a thread block sums query gradients of: up to 8 query blocks, of several batches and heads,
// of which some have no rows, or none in this pass, and keys in partial blocks.
TEST(SegmentAttentionDevice, NeighboursWithSomeRowsOfPartialBlocks) {
  expect_right<BFloat16>(
      {2, 2, 64, {64, 31, 0, 64, 7, 64}, {64, 3, 17, 64, 33}, 0.6, false, 1, false, true});
  expect_right<Half>({2, 1, 128, {5, 64, 64, 20, 48}, {40, 1, 64, 9}, 0.7, false, 1, true, true});
  // Half tiles, 9 of them, and their rows in pools.
  expect_right<BFloat16>(
      {2, 1, 128, {32, 32, 5, 0, 32, 20, 32, 1, 32}, {64, 64, 33, 20}, 0.5, true, 1, false, true});
  expect_right<Half>({1, 2, 64, std::vector<int>(11, 32), {64, 2, 64, 65}, 0.5, false, 1});
  // Long blocks, of which a warpgroup has the rows above 64.
  expect_right<BFloat16>(
      {2, 1, 64, {128, 64, 100, 3}, {128, 5, 64, 70}, 0.7, true, 1, false, true});
  expect_right<Half>({1, 1, 128, {128, 128, 65}, {64, 4, 128}, 0.8, false, 1, false, true});
}

TEST(SegmentAttentionDevice, NoKeysAndNoQueries) {
  expect_right<BFloat16>({1, 2, 64, {64, 5}, {}, 1.0});
  expect_right<BFloat16>({1, 2, 64, {}, {64, 5}, 1.0});
  expect_right<BFloat16>({1, 1, 64, {0, 64, 0}, {64}, 1.0, false, 1, false});
  expect_right<BFloat16>({1, 2, 128, {64, 5}, {64, 64}, 0.0});
}

TEST(SegmentAttentionDevice, PeakedSoftmax) {
  expect_right<BFloat16>({1, 2, 64, {64, 50}, {64, 64, 31, 64}, 0.8, false, 16});
  expect_right<BFloat16>({1, 1, 128, {64}, {64, 64, 31}, 1.0, false, 16, false});
  expect_right<Half>({1, 1, 64, {64, 50}, {64, 64, 31}, 0.8, false, 16});
}

// Longer than what the threads of a block look up at a time: 64 or 128 entries.
TEST(SegmentAttentionDevice, LongLists) {
  expect_right<BFloat16>({1, 1, 64, {16}, std::vector<int>(70, 3), 1.0, false, 1, false});
  expect_right<BFloat16>({1, 1, 64, std::vector<int>(131, 1), {5}, 1.0, false, 1, false});
  // Of which few are available.
  Case<BFloat16> c({1, 1, 64, {16}, std::vector<int>(150, 2), 1.0, false, 1, false});
  for (size_t i = 0; i < c.map.blocks.size(); ++i) {
    if (i != 3 && i != 140) c.map.blocks[i].rows = 0;
  }
  expect_as_exact_as_plain_code(DeviceCase<BFloat16>(c).run(), c);
}

TEST(SegmentAttentionDevice, TwoRunsAreIdentical) {
  const Case<BFloat16> c({1, 2, 64, {64, 33}, {64, 7, 64, 63}, 0.8});
  expect_identical(DeviceCase<BFloat16>(c).run(), DeviceCase<BFloat16>(c).run());
}

TEST(SegmentAttentionDevice, PassesOverPartsOfTheKeysAreOnePass) {
  for (const int dim : {64, 128}) {
    const Case<BFloat16> c({1, 2, dim, {64, 33}, {64, 7, 64, 63, 30}, 0.8});
    KvBlockMap parts[2] = {c.map, c.map};
    for (size_t i = 0; i < c.map.blocks.size(); ++i) parts[i % 3 != 0].blocks[i].rows = 0;
    DeviceCase<BFloat16> device(c);
    for (const KvBlockMap& part : parts) {
      device.use_map(part);
      device.forward(true);
    }
    device.find_delta();
    for (const KvBlockMap& part : parts) {
      device.use_map(part);
      device.backward();
    }
    expect_as_exact_as_plain_code(device.results(), c);
  }
}

TEST(SegmentAttentionDevice, APassWithoutKeysLeavesAFormerOneAlone) {
  const Case<BFloat16> c({1, 2, 64, {64, 33}, {64, 7, 64}, 0.8});
  DeviceCase<BFloat16> device(c);
  const Results<float> former = device.run();
  KvBlockMap nothing = c.map;
  for (KvBlock& block : nothing.blocks) block.rows = 0;
  device.use_map(nothing);
  device.forward(true);
  device.backward();
  expect_identical(device.results(), former);
}

TEST(SegmentAttentionDevice, OneHeadOfSeveral) {
  Case<BFloat16> c({2, 2, 64, {64, 33}, {64, 7, 64}, 0.8});
  const Results<float> all = DeviceCase<BFloat16>(c).run();
  c.computed_heads = HeadRange{2, 3};
  DeviceCase<BFloat16> device(c);
  device.forward(true);
  device.find_delta();
  device.backward();
  const Results<float> one = device.results();
  const int64_t queries = c.queries(), dim = 64;
  for (int64_t i = 0; i < static_cast<int64_t>(all.out.size()); ++i) {
    const int64_t head = i / (queries * 2 * dim) * 2 + i / dim % 2;
    EXPECT_EQ(one.out[i], head == 2 ? all.out[i] : 0) << i;
    EXPECT_EQ(one.dq[i], head == 2 ? all.dq[i] : 0) << i;
  }
  for (int64_t i = 0; i < static_cast<int64_t>(all.lse.size()); ++i) {
    EXPECT_EQ(one.lse[i], i / queries == 2 ? all.lse[i] : -kInfinity) << i;
  }
  for (size_t buffer = 0; buffer < all.dk.size(); ++buffer) {
    const int64_t rows = c.buffer_rows[buffer];
    for (int64_t i = 0; i < static_cast<int64_t>(all.dk[buffer].size()); ++i) {
      const int64_t head = i / (rows * 2 * dim) * 2 + i / dim % 2;
      EXPECT_EQ(one.dk[buffer][i], head == 2 ? all.dk[buffer][i] : 0) << i;
      EXPECT_EQ(one.dv[buffer][i], head == 2 ? all.dv[buffer][i] : 0) << i;
    }
  }
}

TEST(SegmentAttentionDevice, AnOutputInTheElementTypeIsTheRoundedOne) {
  const Case<BFloat16> c({1, 2, 64, {64, 33}, {64, 7, 64}, 0.8, false, 1, true, true});
  DeviceCase<BFloat16> device(c);
  device.forward(false);
  device.forward_rounded();
  device.find_delta(OutputType::kElement);
  const Results<float> results = device.results();
  const std::vector<BFloat16> rounded = device.rounded_out();
  Results<double> exact = c.reference();
  for (size_t i = 0; i < rounded.size(); ++i) {
    ASSERT_EQ(rounded[i].bits, BFloat16(results.out[i]).bits) << i;
  }
  EXPECT_LE(error_of(results.delta, exact.delta), 0x1p-7);
}

TEST(SegmentAttentionDevice, ASmallWorkspaceGivesTheSameGradients) {
  const Case<BFloat16> c({1, 3, 64, {64, 33, 64, 17}, {64, 7, 64}, 0.9});
  const Results<float> whole = DeviceCase<BFloat16>(c).run();
  const SegmentAttentionProblem p = DeviceCase<BFloat16>(c).problem();
  const int64_t head_bytes = int64_t{8192} * 4 * p.max_row_pairs;
  ASSERT_LT(plan_segment_attention_backward(p, head_bytes).heads_per_group, 3);
  const auto with = [&](int64_t bytes) {
    DeviceCase<BFloat16> device(c);
    device.forward(false);
    device.find_delta();
    device.backward(bytes);
    return device.results();
  };
  expect_identical(with(head_bytes), whole);
  // Groups that end within what a thread block has otherwise.
  for (const int blocks : {1, 2}) {
    const int64_t bytes = int64_t{8192} * blocks * p.max_row_pairs;
    const Results<float> by_rows = with(bytes);
    EXPECT_EQ(plan_segment_attention_backward(p, bytes).query_blocks_per_group, blocks);
    EXPECT_TRUE(by_rows.dq == whole.dq);
    expect_as_exact_as_plain_code(by_rows, c);
  }
}

TEST(SegmentAttentionDevice, WhatNoKernelDoesIsRefused) {
  EXPECT_EQ(kernel_family(8, 0), KernelFamily::kSm80);
  EXPECT_EQ(kernel_family(8, 9), KernelFamily::kSm80);
  EXPECT_EQ(kernel_family(9, 0), KernelFamily::kSm90);
  EXPECT_EQ(kernel_family(12, 0), KernelFamily::kSm80);
  EXPECT_THROW(kernel_family(7, 5), ConfigError);
  const Case<BFloat16> c({1, 1, 64, {64}, {64}, 1.0});
  DeviceCase<BFloat16> device(c);
  const CudaStream stream;
  SegmentAttentionProblem p = device.problem();
  p.head_dim = 96;
  EXPECT_THROW(segment_attention_forward(p, {}, stream.view()), ConfigError);
  p = device.problem();
  p.q.row_stride += 1;
  EXPECT_THROW(segment_attention_forward(p, {}, stream.view()), InternalError);
  p = device.problem();
  p.max_query_rows = 129;
  EXPECT_THROW(segment_attention_forward(p, {}, stream.view()), InternalError);
  p = device.problem();
  SegmentAttentionOutput output;
  output.type = OutputType::kElement;
  output.accumulate = true;
  EXPECT_THROW(segment_attention_forward(p, output, stream.view()), InternalError);
}

}  // namespace
}  // namespace sprocket::kernels::cuda

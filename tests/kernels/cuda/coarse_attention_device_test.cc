#include "kernels/cuda/coarse_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/block_pooling.h"
#include "kernels/coarse_attention.h"
#include "kernels/isa.h"
#include "tests/kernels/cuda/device_array.h"
#include "tests/kernels/cuda/row_tile_probe.h"

namespace sprocket::kernels::cuda {
namespace {

std::vector<float> normal_values(int64_t count, uint64_t sample) {
  std::vector<float> values(count);
  RandomStream(11, 0, sample, RandomPurpose::kTest).normal(values);
  return values;
}

// Multiples of 1/2: many scores are equal.
std::vector<float> coarse_values(int64_t count, uint64_t sample) {
  std::vector<float> values = normal_values(count, sample);
  for (float& value : values) value = std::round(value * 2) / 2;
  return values;
}

// NaN, infinities, zeros of both signs and what is too small for a normal number.
std::vector<float> wild_values(int64_t count, uint64_t sample) {
  std::vector<float> values = normal_values(count, sample);
  const float wild[] = {std::numeric_limits<float>::quiet_NaN(),
                        std::numeric_limits<float>::infinity(),
                        -0.0f,
                        0.0f,
                        std::numeric_limits<float>::denorm_min(),
                        -1e-30f,
                        -std::numeric_limits<float>::infinity()};
  for (int64_t i = 0; i < count; i += 5) values[i] = wild[i / 5 % 7];
  return values;
}

std::vector<uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<uint32_t> bits(values.size());
  std::memcpy(bits.data(), values.data(), values.size() * sizeof(float));
  for (size_t i = 0; i < bits.size(); ++i) {
    if (std::isnan(values[i])) bits[i] = 0x7fc00000;  // which NaN it is nobody promises
  }
  return bits;
}

// Where a call has more query rows or blocks than one tile, and where it has one.
struct Shape {
  int batch, heads, query_blocks, kv_blocks, head_dim, first_query_block = 0, prefix_blocks = 0;
  int64_t queries() const { return int64_t{batch} * heads * query_blocks * head_dim; }
  int64_t keys() const { return int64_t{batch} * heads * kv_blocks * head_dim; }
};

using Values = std::vector<float> (*)(int64_t, uint64_t);

// The same problem on host and device.
struct Case {
  Case(const Shape& shape, PrefixRule rule, Values values)
      : q(values(shape.queries(), 1)),
        k(values(shape.keys(), 2)),
        v(normal_values(shape.keys(), 3)),
        q_device(q),
        k_device(k),
        v_device(v) {
    const double scale = 1 / std::sqrt(static_cast<double>(shape.head_dim));
    host = {shape.batch, shape.heads, shape.query_blocks, shape.kv_blocks, shape.head_dim, scale};
    host.qc = q.data();
    host.kc = k.data();
    host.vc = v.data();
    host.first_query_block = shape.first_query_block;
    host.prefix_blocks = shape.prefix_blocks;
    host.prefix_rule = rule;
    device = {shape.batch,         shape.heads,
              shape.query_blocks,  shape.kv_blocks,
              shape.head_dim,      scale,
              q_device.get(),      k_device.get(),
              v_device.get(),      shape.first_query_block,
              shape.prefix_blocks, rule};
  }
  CoarseProblem<double> in_double() {
    q64.assign(q.begin(), q.end());
    k64.assign(k.begin(), k.end());
    v64.assign(v.begin(), v.end());
    CoarseProblem<double> problem{host.batch,     host.heads,    host.query_blocks,
                                  host.kv_blocks, host.head_dim, host.scale};
    problem.qc = q64.data();
    problem.kc = k64.data();
    problem.vc = v64.data();
    problem.first_query_block = host.first_query_block;
    problem.prefix_blocks = host.prefix_blocks;
    return problem;
  }
  std::vector<float> q, k, v;
  std::vector<double> q64, k64, v64;
  DeviceArray<float> q_device, k_device, v_device;
  CoarseProblem<float> host;
  DeviceCoarseProblem device;
};

double largest_error(const std::vector<float>& values, const std::vector<double>& expected) {
  double error = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double distance = std::abs(values[i] - expected[i]);
    if (!(distance <= error)) error = distance;  // a NaN stays
  }
  return error;
}

// At most twice the error of the host in the same precision.
void expect_as_exact(const char* what, const std::vector<float>& found,
                     const std::vector<float>& host, const std::vector<double>& exact) {
  EXPECT_LE(largest_error(found, exact), 2 * largest_error(host, exact)) << what;
}

void expect_same_table(const Shape& shape, PrefixRule rule, int k, Values values) {
  const CudaStream stream;
  Case c(shape, rule, values);
  const SegmentTable expected = kernels::select_and_attend(c.host, k, static_cast<float*>(nullptr));
  const int64_t pairs = selected_pairs(c.device, k);
  ASSERT_EQ(pairs, static_cast<int64_t>(expected.kv_block.size()));
  DeviceArray<int32_t> row_offsets(expected.rows() + 1), kv_block(pairs);
  const DeviceTable table =
      select_and_attend(c.device, k, {row_offsets.get(), kv_block.get()}, nullptr, stream.view());
  EXPECT_EQ(table.max_pairs, pairs);
  EXPECT_EQ(table.rows(), expected.rows());
  const auto offsets = row_offsets.download();
  EXPECT_EQ(std::vector<int64_t>(offsets.begin(), offsets.end()), expected.row_offsets);
  EXPECT_EQ(kv_block.download(), expected.kv_block) << shape.kv_blocks << " blocks, k " << k;
}

// On processors without fused multiply-adds the host's scores have other bits.
bool host_fuses() { return current_isa() != Isa::kBaseline; }

TEST(RowTileDeviceTest, ScoresAreFusedChainsOverAscendingChannels) {
  const CudaStream stream;
  struct Size {
    int m, n, dim;
  };
  for (const Size& size : {Size{1, 1, 1}, Size{17, 37, 20}, Size{5, 300, 16}, Size{9, 129, 67}}) {
    for (const Values values : {normal_values, wild_values}) {
      const auto a = values(int64_t{size.m} * size.dim, 5);
      const auto b = values(int64_t{size.n} * size.dim, 6);
      const float scale = 0.088388f;
      std::vector<float> chains, host(int64_t{size.m} * size.n);
      for (int i = 0; i < size.m; ++i) {
        for (int j = 0; j < size.n; ++j) {
          float sum = 0;
          for (int d = 0; d < size.dim; ++d) {
            sum = std::fma(a[i * size.dim + d], b[j * size.dim + d], sum);
          }
          chains.push_back(sum * scale);
        }
      }
      coarse_scores(a.data(), b.data(), 1, size.m, size.n, size.dim, double{scale}, host.data(), 1);
      if (host_fuses()) {
        EXPECT_EQ(bits_of(host), bits_of(chains));
      }
      DeviceArray<float> a_device(a), b_device(b);
      for (const int rows : {16, 8, 4}) {
        DeviceArray<float> scores(int64_t{size.m} * size.n);
        probe_row_tile(rows, a_device.get(), size.m, b_device.get(), size.n, size.dim, scale,
                       scores.get(), stream.view());
        EXPECT_EQ(bits_of(scores.download()), bits_of(chains)) << rows << " " << size.n;
      }
    }
  }
}

TEST(CoarseAttentionDeviceTest, SelectsAsTheHost) {
  ASSERT_TRUE(host_fuses());
  for (const Values values : {normal_values, coarse_values, wild_values}) {
    expect_same_table({2, 3, 19, 37, 20, 3}, PrefixRule::kExempt, 7, values);
    expect_same_table({1, 2, 16, 64, 16}, PrefixRule::kExempt, 1, values);
    expect_same_table({1, 1, 5, 300, 8, 295}, PrefixRule::kExempt, 299, values);
    expect_same_table({1, 1, 1, 1, 3}, PrefixRule::kExempt, 1, values);
    expect_same_table({1, 2, 18, 33, 4}, PrefixRule::kExempt, 33, values);
  }
}

TEST(CoarseAttentionDeviceTest, PrefixRulesAsOnTheHost) {
  for (const PrefixRule rule : {PrefixRule::kExempt, PrefixRule::kCompete}) {
    for (const Values values : {normal_values, coarse_values}) {
      expect_same_table({2, 2, 21, 40, 12, 0, 6}, rule, 5, values);
      expect_same_table({1, 2, 7, 40, 12, 4, 6}, rule, 34, values);
      expect_same_table({1, 1, 9, 40, 12, 30, 6}, rule, 1, values);
      expect_same_table({1, 2, 4, 40, 12, 0, 6}, rule, 3, values);  // prefix rows alone
    }
  }
  expect_same_table({1, 2, 4, 4, 12, 0, 4}, PrefixRule::kExempt, 0, normal_values);
}

// Rows so long that 16 of them do not fit, then that 8 do not, down to the longest row.
TEST(CoarseAttentionDeviceTest, LongRowsTakeLowerTiles) {
  int device = 0, limit = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  const int room = limit / 4 - 6000;  // floats beside the stage of multiply_rows
  for (const int n : {room / 2 / 12, room / 2 / 6, room / 4}) {
    expect_same_table({1, 1, 9, n, 2}, PrefixRule::kExempt, n / 10, coarse_values);
  }
  const CudaStream stream;
  DeviceCoarseProblem problem;
  problem.batch = problem.heads = problem.query_blocks = 1;
  problem.head_dim = 2;
  problem.kv_blocks = limit;
  EXPECT_THROW(select_and_attend(problem, 1, {}, nullptr, stream.view()), InternalError);
}

TEST(CoarseAttentionDeviceTest, OutputAsExactAsTheHosts) {
  const CudaStream stream;
  for (const Shape& shape : {Shape{2, 2, 19, 37, 20, 3, 2}, Shape{1, 1, 3, 70, 130}}) {
    Case c(shape, PrefixRule::kExempt, normal_values);
    std::vector<float> host(shape.queries());
    std::vector<double> exact(shape.queries());
    kernels::coarse_attend(c.host, host.data());
    kernels::coarse_attend(c.in_double(), exact.data());
    DeviceArray<float> out(shape.queries()), alone(shape.queries());
    DeviceArray<int32_t> row_offsets(int64_t{shape.batch} * shape.heads * shape.query_blocks + 1);
    DeviceArray<int32_t> kv_block(selected_pairs(c.device, 4));
    select_and_attend(c.device, 4, {row_offsets.get(), kv_block.get()}, out.get(), stream.view());
    coarse_attend(c.device, alone.get(), stream.view());
    expect_as_exact("out", out.download(), host, exact);
    EXPECT_EQ(out.download(), alone.download());
  }
}

TEST(CoarseAttentionDeviceTest, AnExtremeRowStaysWithItself) {
  const CudaStream stream;
  const Shape shape{1, 1, 6, 9, 4};
  Case c(shape, PrefixRule::kExempt, wild_values);
  std::vector<float> host(shape.queries());
  kernels::coarse_attend(c.host, host.data());
  DeviceArray<float> out(shape.queries());
  coarse_attend(c.device, out.get(), stream.view());
  const auto found = out.download();
  for (size_t i = 0; i < host.size(); ++i) EXPECT_EQ(std::isnan(found[i]), std::isnan(host[i]));
}

struct Gradients {
  explicit Gradients(const Shape& shape)
      : dqc(shape.queries()), dkc(shape.keys()), dvc(shape.keys()) {}
  DeviceArray<float> dqc, dkc, dvc;
};

TEST(CoarseAttentionDeviceTest, GradientsAsExactAsTheHosts) {
  const CudaStream stream;
  for (const Shape& shape :
       {Shape{2, 2, 19, 37, 20, 3, 2}, Shape{1, 1, 3, 70, 130}, Shape{1, 2, 33, 33, 16}}) {
    Case c(shape, PrefixRule::kExempt, normal_values);
    const auto dout = normal_values(shape.queries(), 9);
    const std::vector<double> dout64(dout.begin(), dout.end());
    std::vector<float> dq(shape.queries()), dk(shape.keys()), dv(shape.keys());
    std::vector<double> dq64(shape.queries()), dk64(shape.keys()), dv64(shape.keys());
    kernels::coarse_attend_backward(c.host, dout.data(), dq.data(), dk.data(), dv.data());
    kernels::coarse_attend_backward(c.in_double(), dout64.data(), dq64.data(), dk64.data(),
                                    dv64.data());
    DeviceArray<float> dout_device(dout);
    DeviceArray<char> workspace(coarse_backward_workspace_bytes(c.device));
    Gradients first(shape), second(shape);
    for (Gradients* to : {&first, &second}) {
      coarse_attend_backward(c.device, dout_device.get(), to->dqc.get(), to->dkc.get(),
                             to->dvc.get(), workspace.get(), stream.view());
    }
    expect_as_exact("dqc", first.dqc.download(), dq, dq64);
    expect_as_exact("dkc", first.dkc.download(), dk, dk64);
    expect_as_exact("dvc", first.dvc.download(), dv, dv64);
    EXPECT_EQ(first.dqc.download(), second.dqc.download());
    EXPECT_EQ(first.dkc.download(), second.dkc.download());
    EXPECT_EQ(first.dvc.download(), second.dvc.download());
  }
}

// No query block here: gradients of keys are zeros, the table has one offset.
TEST(CoarseAttentionDeviceTest, WithoutQueryBlocks) {
  const CudaStream stream;
  const Shape shape{1, 2, 0, 5, 4, 3};
  Case c(shape, PrefixRule::kExempt, normal_values);
  DeviceArray<int32_t> row_offsets(1), kv_block(0);
  select_and_attend(c.device, 2, {row_offsets.get(), kv_block.get()}, nullptr, stream.view());
  EXPECT_EQ(row_offsets.download(), std::vector<int32_t>{0});
  Gradients gradients(shape);
  coarse_attend_backward(c.device, nullptr, gradients.dqc.get(), gradients.dkc.get(),
                         gradients.dvc.get(), nullptr, stream.view());
  EXPECT_EQ(gradients.dkc.download(), std::vector<float>(shape.keys(), 0.0f));
  EXPECT_EQ(gradients.dvc.download(), std::vector<float>(shape.keys(), 0.0f));
}

TEST(CoarseAttentionDeviceTest, RefusesCountsThatNoRowCanSelect) {
  const CudaStream stream;
  Case c({1, 1, 3, 5, 4}, PrefixRule::kExempt, normal_values);
  EXPECT_THROW(select_and_attend(c.device, 6, {}, nullptr, stream.view()), InternalError);
  EXPECT_THROW(select_and_attend(c.device, 0, {}, nullptr, stream.view()), InternalError);
  c.device.first_query_block = 3;
  EXPECT_THROW(coarse_attend(c.device, nullptr, stream.view()), InternalError);
}

}  // namespace
}  // namespace sprocket::kernels::cuda

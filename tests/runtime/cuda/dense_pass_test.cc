// A dense pass through LibTorch's operators against the segment kernel and against fp64, over two
// buffers of keys of which a part is mapped.
#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <cmath>

#include "parallel/attention/dense_rows.h"
#include "parallel/device/tensor_device.h"
#include "tests/runtime/cuda/dense_operators.h"
#include "tests/runtime/cuda/host_operators.h"

namespace sprocket::parallel {
namespace {

constexpr int64_t kBatch = 2, kQueries = 100, kHeads = 2, kDim = 64;
constexpr double kScale = 0.2;

at::Tensor wave(int64_t rows, double phase) {
  const int64_t count = kBatch * rows * kHeads * kDim;
  return at::sin(at::arange(count, at::kDouble) * 0.37 + phase)
      .mul_(1.3)
      .view({kBatch, rows, kHeads, kDim})
      .to(at::kBFloat16);
}

struct Results {
  at::Tensor out, lse, dq;
  std::vector<at::Tensor> dk, dv;
};

double error(const at::Tensor& found, const at::Tensor& exact) {
  return ((found.cpu().to(at::kDouble) - exact).norm() / exact.norm()).item<double>();
}

class DensePass : public ::testing::Test {
 protected:
  DensePass() { testing::use_host_operators(); }

  // Rows 8 to 107 of the first buffer, all of the second one.
  static kernels::KvBlockMap map() {
    return {4, false, {{0, 64, 8, 0}, {1, 20, 64, 0}, {0, 36, 72, 0}, {1, 64, 0, 0}}};
  }

  QuerySide query(const at::Device& device) const {
    auto table = kernels::make_dense_table(kBatch, kHeads, 2, 4);
    QuerySide query{q_.to(device),
                    {0, 64, kQueries},
                    std::make_shared<const kernels::SegmentTable>(std::move(table)),
                    {},
                    kScale};
    upload(query);
    return query;
  }

  std::vector<KvTensors> keys(const at::Device& device) const {
    return {{k_[0].to(device), v_[0].to(device)}, {k_[1].to(device), v_[1].to(device)}};
  }

  Results exact() const {
    const auto rows = [](const std::vector<at::Tensor>& x) {
      return at::cat({x[0].narrow(1, 8, 100), x[1]}, 1).transpose(1, 2).to(at::kDouble);
    };
    const at::Tensor q = q_.transpose(1, 2).to(at::kDouble), k = rows(k_), v = rows(v_),
                     dout = dout_.transpose(1, 2).to(at::kDouble);
    const at::Tensor scores = at::matmul(q, k.transpose(2, 3)) * kScale;
    const at::Tensor lse = at::logsumexp(scores, {3}), p = (scores - lse.unsqueeze(3)).exp();
    const at::Tensor out = at::matmul(p, v), dp = at::matmul(dout, v.transpose(2, 3));
    const at::Tensor ds = p * (dp - (dout * out).sum(3, true)) * kScale;
    const auto by_buffer = [](const at::Tensor& x_BHLD) {
      const at::Tensor x = x_BHLD.transpose(1, 2);
      at::Tensor first = at::zeros({kBatch, 120, kHeads, kDim}, at::kDouble);
      first.narrow(1, 8, 100).copy_(x.narrow(1, 0, 100));
      return std::vector<at::Tensor>{first, x.narrow(1, 100, 84).contiguous()};
    };
    return {out.transpose(1, 2).contiguous(), lse, at::matmul(ds, k).transpose(1, 2).contiguous(),
            by_buffer(at::matmul(ds.transpose(2, 3), q)),
            by_buffer(at::matmul(p.transpose(2, 3), dout))};
  }

  // In one pass, or in passes of one head each, which are not dense.
  Results compute(const at::Device& device, bool dense) const {
    const QuerySide side = query(device);
    const std::vector<KvTensors> kv = keys(device);
    PassOutput output = empty_output(side.q_BLHD);
    const std::vector<std::optional<kernels::HeadRange>> passes =
        dense ? std::vector<std::optional<kernels::HeadRange>>{std::nullopt}
              : std::vector<std::optional<kernels::HeadRange>>{kernels::HeadRange{0, 1},
                                                               kernels::HeadRange{1, 4}};
    for (const auto& heads : passes) forward_pass(side, kv, map(), output, heads);
    EXPECT_FALSE(output.untouched);
    const OutputSide out = output_side(output.out_BLHD, output.lse_BHL, dout_.to(device), 1);
    const auto sums = output.out_BLHD.options();
    std::vector<KvTensors> dkv;
    for (const KvTensors& buffer : kv) {
      dkv.push_back({at::zeros(buffer.k.sizes(), sums), at::zeros(buffer.v.sizes(), sums)});
    }
    const at::Tensor dq = at::zeros(side.q_BLHD.sizes(), sums);
    for (const auto& heads : passes) backward_pass(side, kv, map(), out, dq, dkv, heads);
    return {output.out_BLHD,
            output.lse_BHL,
            dq,
            {dkv[0].k.cpu(), dkv[1].k.cpu()},
            {dkv[0].v.cpu(), dkv[1].v.cpu()}};
  }

  const at::Tensor q_ = wave(kQueries, 0.1), dout_ = wave(kQueries, 2.3);
  const std::vector<at::Tensor> k_{wave(120, 0.7), wave(84, 1.9)},
      v_{wave(120, 3.1), wave(84, 4.3)};
};

TEST_F(DensePass, IsAsExactAsTheSegmentKernel) {
  const TensorDevice device = TensorDevice::hold(0);
  const Results exact = this->exact();
  testing::reset_dense_calls();
  const Results segments = compute(device.device(), false);
  EXPECT_EQ(testing::dense_calls().forward, 0);
  EXPECT_EQ(testing::dense_calls().backward, 0);
  const Results dense = compute(device.device(), true);
  EXPECT_EQ(testing::dense_calls().forward, 2);
  EXPECT_EQ(testing::dense_calls().backward, 2);

  const auto expect_as_exact = [](const char* what, const at::Tensor& found,
                                  const at::Tensor& kernel, const at::Tensor& reference) {
    SCOPED_TRACE(what);
    // Sums in fp32; parts are rounded to bf16.
    EXPECT_LE(error(found, reference), 2 * std::max(error(kernel, reference), 0x1p-9));
  };
  expect_as_exact("out", dense.out, segments.out, exact.out);
  expect_as_exact("dq", dense.dq, segments.dq, exact.dq);
  EXPECT_LE(error(dense.lse, exact.lse), 1e-6);
  for (int buffer = 0; buffer < 2; ++buffer) {
    expect_as_exact("dk", dense.dk[buffer], segments.dk[buffer], exact.dk[buffer]);
    expect_as_exact("dv", dense.dv[buffer], segments.dv[buffer], exact.dv[buffer]);
  }
  // Rows that the map lacks.
  EXPECT_EQ(dense.dk[0].narrow(1, 0, 8).abs().max().item<double>(), 0);
  EXPECT_EQ(dense.dv[0].narrow(1, 108, 12).abs().max().item<double>(), 0);
}

// (0, -inf) in rows of an output that has been touched, as a pass over other heads leaves them.
TEST_F(DensePass, MergesIntoRowsWithoutAPartAsIntoNone) {
  const TensorDevice device = TensorDevice::hold(0);
  const QuerySide side = query(device.device());
  PassOutput fresh = empty_output(side.q_BLHD), touched = empty_output(side.q_BLHD);
  touched.untouched = false;
  forward_pass(side, keys(device.device()), map(), fresh);
  forward_pass(side, keys(device.device()), map(), touched);
  EXPECT_TRUE(fresh.out_BLHD.cpu().equal(touched.out_BLHD.cpu()));
  EXPECT_TRUE(fresh.lse_BHL.cpu().equal(touched.lse_BHL.cpu()));
}

TEST_F(DensePass, LeavesLibTorchsSettingAsItWas) {
  const TensorDevice device = TensorDevice::hold(0);
  compute(device.device(), true);
  EXPECT_FALSE(at::globalContext().deterministicAlgorithms());
  EXPECT_TRUE(at::globalContext().deterministicFillUninitializedMemory());
}

}  // namespace
}  // namespace sprocket::parallel

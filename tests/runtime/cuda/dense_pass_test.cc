// A dense pass through LibTorch's operators against the segment kernel and against fp64, over parts
// of two buffers of keys, or over a few keys of one.
#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/attention/dense_rows.h"
#include "tests/runtime/cuda/take_device.h"

namespace sprocket::parallel {
namespace {

constexpr int64_t kBatch = 2, kQueries = 100, kHeads = 2;
constexpr int64_t kRows[] = {120, 84};  // of the buffers
constexpr double kScale = 0.2;

struct Case {
  int64_t dim;
  std::vector<kernels::KvBlock> blocks;
  std::vector<DenseRows> runs;  // what they make up
};

struct Results {
  at::Tensor out, lse, dq;
  std::vector<at::Tensor> dk, dv;  // by buffer
};

at::Tensor by_heads(const at::Tensor& x) { return x.transpose(1, 2); }

double error(const at::Tensor& found, const at::Tensor& exact) {
  return ((found.to(at::kDouble) - exact).norm() / exact.norm()).item<double>();
}

class DensePass : public ::testing::TestWithParam<Case> {
 protected:
  at::Tensor wave(int64_t rows, double phase) const {
    const int64_t count = kBatch * rows * kHeads * GetParam().dim;
    return at::sin(at::arange(count, at::kDouble) * 0.37 + phase)
        .mul_(1.3)
        .view({kBatch, rows, kHeads, GetParam().dim})
        .to(at::kBFloat16);
  }

  kernels::KvBlockMap map() const {
    return {static_cast<int>(GetParam().blocks.size()), false, GetParam().blocks};
  }

  QuerySide query() const {
    auto table = kernels::make_dense_table(kBatch, kHeads, 2, map().kv_blocks);
    QuerySide query{q_.to(device_.device()),
                    {0, 64, kQueries},
                    std::make_shared<const kernels::SegmentTable>(std::move(table)),
                    {},
                    kScale};
    attach_device_form(query);
    return query;
  }

  std::vector<KvTensors> keys() const {
    std::vector<KvTensors> keys;
    for (int i = 0; i < 2; ++i) {
      keys.push_back({k_[i].to(device_.device()), v_[i].to(device_.device())});
    }
    return keys;
  }

  // [B, H, keys of all runs, D]
  at::Tensor of_runs(const std::vector<at::Tensor>& buffers) const {
    std::vector<at::Tensor> parts;
    for (const DenseRows& run : GetParam().runs) {
      parts.push_back(buffers[run.buffer].narrow(1, run.first, run.count));
    }
    return by_heads(at::cat(parts, 1)).to(at::kDouble);
  }

  std::vector<at::Tensor> to_buffers(const at::Tensor& runs_BHLD) const {
    std::vector<at::Tensor> buffers;
    for (const int64_t rows : kRows) {
      buffers.push_back(at::zeros({kBatch, rows, kHeads, GetParam().dim}, at::kDouble));
    }
    int64_t next = 0;
    for (const DenseRows& run : GetParam().runs) {
      buffers[run.buffer]
          .narrow(1, run.first, run.count)
          .copy_(by_heads(runs_BHLD.narrow(2, next, run.count)));
      next += run.count;
    }
    return buffers;
  }

  static at::Tensor to_bf16(const at::Tensor& x) { return x.to(at::kBFloat16).to(at::kDouble); }

  // as_operators: with the roundings that the operators' types ask for, and no others: the output
  // of every run, the whole output, and the gradient of q of every run, to bf16. Runs whose parts
  // cancel lose by them.
  Results exact(bool as_operators) const {
    const at::Tensor q = by_heads(q_).to(at::kDouble), k = of_runs(k_), v = of_runs(v_),
                     dout = by_heads(dout_).to(at::kDouble);
    const at::Tensor scores = at::matmul(q, k.transpose(2, 3)) * kScale;
    const at::Tensor lse = at::logsumexp(scores, {3}), p = (scores - lse.unsqueeze(3)).exp();
    at::Tensor out = at::zeros_like(q), dq = at::zeros_like(q);
    const auto rounded = [as_operators](const at::Tensor& x) {
      return as_operators ? to_bf16(x) : x;
    };
    for_runs([&](int64_t first, int64_t count) {
      const at::Tensor part = p.narrow(3, first, count), weight = part.sum(3, true);
      out += rounded(at::matmul(part, v.narrow(2, first, count)) / weight) * weight;
    });
    const at::Tensor dp = at::matmul(dout, v.transpose(2, 3));
    const at::Tensor ds = p * (dp - (dout * rounded(out)).sum(3, true)) * kScale;
    for_runs([&](int64_t first, int64_t count) {
      dq += rounded(at::matmul(ds.narrow(3, first, count), k.narrow(2, first, count)));
    });
    return {by_heads(out), lse, by_heads(dq), to_buffers(at::matmul(ds.transpose(2, 3), q)),
            to_buffers(at::matmul(p.transpose(2, 3), dout))};
  }

  template <class Work>
  void for_runs(Work&& work) const {
    int64_t first = 0;
    for (const DenseRows& run : GetParam().runs) {
      work(first, run.count);
      first += run.count;
    }
  }

  // In one pass for each entry.
  Results compute(const std::vector<std::optional<kernels::HeadRange>>& passes) const {
    const QuerySide side = query();
    const std::vector<KvTensors> kv = keys();
    PassOutput output = empty_output(side.q_BLHD);
    for (const auto& heads : passes) forward_pass(side, kv, map(), output, heads);
    EXPECT_FALSE(output.untouched);
    const OutputSide out =
        output_side(output.out_BLHD, output.lse_BHL, dout_.to(device_.device()), 1);
    const auto sums = output.out_BLHD.options();
    std::vector<KvTensors> dkv;
    for (const KvTensors& buffer : kv) {
      dkv.push_back({at::zeros(buffer.k.sizes(), sums), at::zeros(buffer.v.sizes(), sums)});
    }
    const at::Tensor dq = at::zeros(side.q_BLHD.sizes(), sums);
    for (const auto& heads : passes) backward_pass(side, kv, map(), out, dq, dkv, heads);
    return {output.out_BLHD.cpu(),
            output.lse_BHL.cpu(),
            dq.cpu(),
            {dkv[0].k.cpu(), dkv[1].k.cpu()},
            {dkv[0].v.cpu(), dkv[1].v.cpu()}};
  }

  const TensorDevice device_ = testing::take_device();
  const at::Tensor q_ = wave(kQueries, 0.1), dout_ = wave(kQueries, 2.3);
  const std::vector<at::Tensor> k_{wave(kRows[0], 0.7), wave(kRows[1], 1.9)},
      v_{wave(kRows[0], 3.1), wave(kRows[1], 4.3)};
};

TEST_P(DensePass, IsAsExactAsItsPrecision) {
  ASSERT_EQ(dense_rows(query(), map(), {}), GetParam().runs);
  const Results exact = this->exact(false), rounded = this->exact(true),
                dense = compute({std::nullopt}),
                segments = compute({kernels::HeadRange{0, 1}, kernels::HeadRange{1, 4}});
  // The kernel's roundings, the operators' and the result's, all to bf16.
  const auto expect_as_exact = [](const char* what, const at::Tensor& found,
                                  const at::Tensor& kernel, const at::Tensor& as_operators,
                                  const at::Tensor& reference) {
    SCOPED_TRACE(what);
    EXPECT_LE(error(found, reference),
              2 * std::max({error(kernel, reference), error(as_operators, reference), 0x1p-9}));
  };
  expect_as_exact("out", dense.out, segments.out, rounded.out, exact.out);
  expect_as_exact("dq", dense.dq, segments.dq, rounded.dq, exact.dq);
  // To the base e, with the scale inside.
  EXPECT_LE(error(dense.lse, exact.lse), 2 * std::max(error(segments.lse, exact.lse), 0x1p-20));
  for (const DenseRows& run : GetParam().runs) {
    const int i = run.buffer;
    expect_as_exact("dk", dense.dk[i], segments.dk[i], rounded.dk[i], exact.dk[i]);
    expect_as_exact("dv", dense.dv[i], segments.dv[i], exact.dv[i], exact.dv[i]);
    // Rows that the map lacks stay as they were.
    EXPECT_EQ(dense.dk[i].narrow(1, 0, run.first).abs().sum().item<double>(), 0);
    const int64_t end = run.first + run.count;
    EXPECT_EQ(dense.dv[i].narrow(1, end, kRows[i] - end).abs().sum().item<double>(), 0);
  }
}

TEST_P(DensePass, TwoRunsAreEqual) {
  const Results a = compute({std::nullopt}), b = compute({std::nullopt});
  EXPECT_TRUE(a.out.equal(b.out) && a.lse.equal(b.lse) && a.dq.equal(b.dq));
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(a.dk[i].equal(b.dk[i]) && a.dv[i].equal(b.dv[i]));
}

// (0, -inf) in rows of an output that has been touched, as a pass over other heads leaves them.
TEST_P(DensePass, MergesIntoRowsWithoutAPartAsIntoNone) {
  const QuerySide side = query();
  PassOutput fresh = empty_output(side.q_BLHD), touched = empty_output(side.q_BLHD);
  touched.untouched = false;
  forward_pass(side, keys(), map(), fresh);
  forward_pass(side, keys(), map(), touched);
  EXPECT_TRUE(fresh.out_BLHD.cpu().equal(touched.out_BLHD.cpu()));
  EXPECT_TRUE(fresh.lse_BHL.cpu().equal(touched.lse_BHL.cpu()));
}

TEST_P(DensePass, LeavesLibTorchsSettingAsItWas) {
  compute({std::nullopt});
  EXPECT_FALSE(at::globalContext().deterministicAlgorithms());
  EXPECT_TRUE(at::globalContext().deterministicFillUninitializedMemory());
}

std::vector<Case> cases() {
  std::vector<Case> cases;
  for (const int64_t dim : {64, 128}) {
    cases.push_back({dim,
                     {{0, 64, 8, 0}, {1, 20, 64, 0}, {0, 36, 72, 0}, {1, 64, 0, 0}},
                     {{0, 8, 100}, {1, 0, 84}}});
    cases.push_back({dim, {{0, 6, 8, 0}}, {{0, 8, 6}}});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Keys, DensePass, ::testing::ValuesIn(cases()), [](const auto& info) {
  return fmt::format("{}{}", info.param.runs.size() > 1 ? "Two" : "Few", info.param.dim);
});

}  // namespace
}  // namespace sprocket::parallel

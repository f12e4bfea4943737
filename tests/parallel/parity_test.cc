// fp64: every strategy and hybrid on N ranks equals one whole computation to 1e-10, forward and all
// gradients.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/comm/thread_ranks.h"
#include "tests/parallel/method_reference.h"

namespace sprocket::parallel::testing {
namespace {

constexpr double kExact = 1e-10;

class Parity : public ::testing::TestWithParam<int> {};

TEST_P(Parity, EveryStrategyEqualsTheWholeComputation) {
  static References references;
  for (const auto& c : parity_cases(GetParam())) {
    const AttentionTensors inputs = make_inputs(c);
    const Reference& whole = references.of(c, inputs);
    comm::testing::run_ranks(GetParam(), [&](comm::Communicator& world) {
      check_case(c, inputs, whole, world, kExact);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Worlds, Parity, ::testing::Values(1, 2, 3, 4, 5, 7, 8));

TEST(ParityOptions, CoarseBranchAddedOrAbsent) {
  for (auto coarse : {CoarseBranch::kAdd, CoarseBranch::kNone}) {
    AttentionCase c;
    c.spec.method = MethodKind::kVsa;
    c.spec.vsa.sparsity = Decimal::parse("0.5");
    c.spec.vsa.coarse = coarse;
    c.mesh = {1, 3, 2};
    const AttentionTensors inputs = make_inputs(c);
    const Reference whole = make_reference(c, inputs);
    comm::testing::run_ranks(
        6, [&](comm::Communicator& world) { check_case(c, inputs, whole, world, kExact); });
  }
}

TEST(ParityOptions, RasterSlabsAndBudgetPerHead) {
  AttentionCase c;
  c.layout = {{9, 7, 5}, {2, 3, 4}, BlockOrder::kRaster, 4};
  c.spec.method = MethodKind::kVsa;
  c.spec.vsa.sparsity = Decimal::parse("0.8");
  c.spec.budget.max_coverage = {Decimal::parse("0.25")};
  c.spec.budget.head_group = 1;
  c.mesh = {1, 2, 3};
  const AttentionTensors inputs = make_inputs(c);
  const Reference whole = make_reference(c, inputs);
  comm::testing::run_ranks(
      6, [&](comm::Communicator& world) { check_case(c, inputs, whole, world, kExact); });
}

// A library linked beside LibTorch must not put its own BLAS in the place of LibTorch's.
TEST(LibTorch, KeepsItsOwnMatrixProduct) {
  for (auto dtype : {at::kFloat, at::kDouble}) {
    const at::Tensor a = at::arange(35, dtype).view({5, 7}), b = at::arange(21, dtype).view({7, 3});
    const at::Tensor expected = (a.unsqueeze(2) * b.unsqueeze(0)).sum(1);
    EXPECT_TRUE(at::mm(a, b).equal(expected));  // integers: exact in any order
  }
}

TEST(ParityOptions, TwoRunsAreBitwiseEqual) {
  for (auto kind :
       {OuterStrategyKind::kSelected, OuterStrategyKind::kRing, OuterStrategyKind::kAllGather}) {
    AttentionCase c;
    c.dtype = at::kFloat;
    c.spec.method = MethodKind::kVsa;
    c.spec.vsa.sparsity = Decimal::parse("0.6");
    c.mesh = {1, 2, 2};
    c.strategy.outer = kind;
    c.strategy.threads = 2;
    const AttentionTensors inputs = make_inputs(c);
    std::vector<AttentionResult> runs[2];
    for (auto& results : runs) {
      results.resize(4);
      comm::testing::run_ranks(4, [&](comm::Communicator& world) {
        const Mesh mesh(world.split(0, world.rank(), "world"), c.mesh);
        results[world.rank()] = run_sharded(c, inputs, mesh);
      });
    }
    for (int rank = 0; rank < 4; ++rank) {
      EXPECT_TRUE(bitwise_equal(runs[0][rank], runs[1][rank])) << c.name();
    }
  }
}

// What a caller can get wrong is named.
TEST(AttentionInputs, ATensorThatDoesNotFitIsNamed) {
  AttentionCase c;
  c.spec.method = MethodKind::kVsa;
  c.spec.vsa.sparsity = Decimal::parse("0.5");
  const auto message = [&](auto damage) -> std::string {
    AttentionTensors x = make_inputs(c);
    damage(x);
    std::string text = "accepted";
    comm::testing::run_ranks(1, [&](comm::Communicator& world) {
      const Mesh mesh(world.split(0, 0, "world"), c.mesh);
      SequenceAttention attention(mesh, make_token_layout(c.layout), c.strategy);
      AttentionSlot slot;
      try {
        attention.forward(x.q, x.k, x.v, x.gates, c.spec, slot);
      } catch (const InternalError& error) {
        text = error.what();
      }
    });
    return text;
  };
  const auto expect = [&](auto damage, const char* what) {
    const std::string text = message(damage);
    EXPECT_NE(text.find(what), std::string::npos) << text;
  };
  using X = AttentionTensors&;
  expect([](X) {}, "accepted");
  expect([](X x) { x.q = x.q.narrow(1, 0, 269); },
         "q: expected [B, 270, H, D], this rank's tokens of a grid of 5 x 9 x 6 and 0 prefix "
         "tokens, found [2, 269, 6, 8]");
  expect([](X x) { x.k = x.k.narrow(2, 0, 5); },
         "k: expected the shape of q, [2, 270, 6, 8], found [2, 270, 5, 8]");
  expect([](X x) { x.v = x.v.narrow(3, 0, 4); },
         "v: expected the shape of q, [2, 270, 6, 8], found [2, 270, 6, 4]");
  expect([](X x) { x.k = x.k.to(at::kFloat); }, "k: expected the type of q, Double, found Float");
  expect([](X x) { x.q = x.q.to(at::kHalf); }, "q: expected f64, f32 or bf16, found Half");
  expect([](X x) { x.gates.coarse = at::Tensor(); },
         "the coarse gate: expected a tensor, found none");
  expect([](X x) { x.gates.fine = x.q; },
         "the fine gate: expected none with this method, found one");
}

// Low precision passes when its error is at most twice that of one rank in the same precision.
TEST(ParityOptions, LowPrecisionIsAsGoodAsOnOneRank) {
  for (auto dtype : {at::kFloat, at::kBFloat16}) {
    for (auto kind :
         {OuterStrategyKind::kSelected, OuterStrategyKind::kRing, OuterStrategyKind::kAllGather}) {
      AttentionCase c;
      c.dtype = dtype;
      c.strategy.outer = kind;
      const AttentionTensors inputs = make_inputs(c);
      const Reference whole = make_reference(c, inputs);
      double alone = 0;
      comm::testing::run_ranks(1, [&](comm::Communicator& world) {
        const Mesh mesh(world.split(0, 0, "world"), c.mesh);
        const ShardPlan plan = make_shard_plan(make_token_layout(c.layout), c.mesh);
        alone = largest_difference(whole.result, run_sharded(c, inputs, mesh), plan, 0);
      });
      ASSERT_GT(alone, 0);
      c.mesh = {1, 3, 2};
      comm::testing::run_ranks(
          6, [&](comm::Communicator& world) { check_case(c, inputs, whole, world, 2 * alone); });
    }
  }
}

}  // namespace
}  // namespace sprocket::parallel::testing

// fp32 and bf16 of every method, and what has to be bitwise the same.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/parallel/method_expectations.h"

namespace sprocket::parallel::testing {
namespace {

// Root of the sum of squares: the largest single error is a matter of luck.
double error_of(const at::Tensor& exact, const at::Tensor& x) {
  const at::Tensor y = x.to(at::kDouble);
  return (exact - y).masked_fill(exact == y, 0).norm().item<double>();
}

// The error is at most twice that of plain tensor operations in the same precision.
TEST(MethodPrecision, IsThatOfTheReferenceInTheSamePrecision) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (AttentionCase c : method_cases()) {
      for (const double q_factor : {1.0, 16.0}) {
        c.heads = 2;
        c.head_dim = 64;
        c.dtype = dtype;
        c.inputs.q_factor = q_factor;
        const AttentionTensors inputs = make_inputs(c);
        const AttentionResult run = run_alone(c, inputs);
        const MethodChoice choice = choice_of(c, run.selection);
        const AttentionResult exact = attend(c, inputs, choice, at::kDouble),
                              plain = attend(c, inputs, choice, dtype);
        const auto check = [&](const char* what, const at::Tensor& e, const at::Tensor& p,
                               const at::Tensor& r) {
          if (!e.defined()) return;
          EXPECT_LE(error_of(e, r), 2 * error_of(e, p))
              << c.problem() << " " << c10::toString(dtype) << " x" << q_factor << " " << what;
        };
        check("out", exact.out, plain.out, run.out);
        check("lse", exact.lse, plain.lse, run.lse);
        check("dq", exact.dq, plain.dq, run.dq);
        check("dk", exact.dk, plain.dk, run.dk);
        check("dv", exact.dv, plain.dv, run.dv);
        check("dgate", exact.dgates.coarse, plain.dgates.coarse, run.dgates.coarse);
        check("dfine_gate", exact.dgates.fine, plain.dgates.fine, run.dgates.fine);
      }
    }
  }
}

TEST(MethodPrecision, RunsAndThreadsDoNotChangeABit) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (AttentionCase c : method_cases()) {
      c.heads = 3;
      c.head_dim = 32;
      c.dtype = dtype;
      const AttentionTensors inputs = make_inputs(c);
      const AttentionResult first = run_alone(c, inputs), second = run_alone(c, inputs);
      c.strategy.threads = 2;
      const AttentionResult threads = run_alone(c, inputs);
      EXPECT_TRUE(bitwise_equal(first, second)) << c.problem();
      EXPECT_TRUE(bitwise_equal(first, threads)) << c.problem();
    }
  }
}

TEST(MethodPrecision, ASavedSelectionGivesTheSameBits) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (AttentionCase c : method_cases()) {
      c.heads = 2;
      c.dtype = dtype;
      const AttentionTensors inputs = make_inputs(c);
      AttentionSlot slot;
      const AttentionResult first = run_alone(c, inputs, slot), again = run_alone(c, inputs, slot);
      EXPECT_TRUE(bitwise_equal(first, again)) << c.problem();
      EXPECT_EQ(first.selection.table, again.selection.table) << c.problem();
    }
  }
}

// A slot's selection is used for whatever inputs come, not made again.
TEST(MethodPrecision, ASavedSelectionIsNotMadeAgain) {
  for (AttentionCase c : method_cases()) {
    c.heads = 2;
    AttentionTensors inputs = make_inputs(c);
    AttentionSlot slot;
    const AttentionResult first = run_alone(c, inputs, slot);
    const MethodChoice choice = choice_of(c, first.selection);
    inputs.q = inputs.q.roll(1, 1);
    inputs.k = inputs.k.flip(3);
    const AttentionResult other = run_alone(c, inputs, slot);
    const ShardPlan plan = make_shard_plan(make_token_layout(c.layout), c.mesh);
    EXPECT_LE(largest_difference(attend(c, inputs, choice, at::kDouble), other, plan, 0), 1e-10)
        << c.problem();
  }
}

}  // namespace
}  // namespace sprocket::parallel::testing

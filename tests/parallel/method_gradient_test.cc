// Gradients of every method: finite differences, and zeros where nothing was selected.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/parallel/method_expectations.h"

namespace sprocket::parallel::testing {
namespace {

std::vector<at::Tensor*> arguments(AttentionTensors& inputs) {
  std::vector<at::Tensor*> all{&inputs.q, &inputs.k, &inputs.v};
  if (inputs.gates.coarse.defined()) all.push_back(&inputs.gates.coarse);
  if (inputs.gates.fine.defined()) all.push_back(&inputs.gates.fine);
  return all;
}

std::vector<at::Tensor> gradients(const AttentionResult& result) {
  std::vector<at::Tensor> all{result.dq, result.dk, result.dv};
  if (result.dgates.coarse.defined()) all.push_back(result.dgates.coarse);
  if (result.dgates.fine.defined()) all.push_back(result.dgates.fine);
  return all;
}

// Along one direction of each argument, by the central difference of fourth order: the error is
// step^4 / 30 times a fifth derivative, and 1e-16 / step of the sum's rounding.
TEST(MethodGradient, IsTheFiniteDifference) {
  constexpr double kStep = 1e-3;
  for (AttentionCase c : method_cases()) {
    c.heads = 1;
    c.batch = 1;
    c.layout.grid = {3, 5, 5};
    AttentionTensors inputs = make_inputs(c);
    AttentionSlot slot;
    const auto expected = gradients(run_alone(c, inputs, slot));
    const auto all = arguments(inputs);
    ASSERT_EQ(all.size(), expected.size());
    for (size_t i = 0; i < all.size(); ++i) {
      const at::Tensor at_rest = *all[i], direction = at_rest.flip(1).flip(3);
      const auto value = [&](double step) {
        *all[i] = at_rest + step * direction;
        const double sum = (run_alone(c, inputs, slot).out * inputs.dout).sum().item<double>();
        *all[i] = at_rest;
        return sum;
      };
      const double difference =
          (8 * (value(kStep) - value(-kStep)) - (value(2 * kStep) - value(-2 * kStep))) /
          (12 * kStep);
      const double slope = (expected[i] * direction).sum().item<double>();
      EXPECT_NEAR(difference, slope, 1e-8 * (1 + std::abs(slope))) << c.problem() << " " << i;
    }
  }
}

// [B, H, L] whether anybody selected the token, in whatever form.
at::Tensor selected_tokens(const MethodChoice& choice, int64_t tokens) {
  const at::Tensor columns = choice.selected.any(2);
  const at::Tensor result = at::zeros({columns.size(0), columns.size(1), tokens}, at::kBool);
  for (size_t r = 0; r < choice.keys.column.size(); ++r) {
    result.narrow(2, choice.keys.first_token[r], choice.keys.tokens[r])
        .logical_or_(columns.select(2, choice.keys.column[r]).unsqueeze(-1));
  }
  return result;
}

// Keys of one block point away from all queries, so that nobody selects them.
TEST(MethodGradient, IsExactlyZeroWhereNothingWasSelected) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (AttentionCase c : method_cases()) {
      if (c.spec.method == MethodKind::kDense || c.spec.method == MethodKind::kSlidingTile)
        continue;
      c.heads = 2;
      c.dtype = dtype;
      c.layout.prefix.clear();
      c.spec.vsa.coarse = CoarseBranch::kNone;
      c.spec.asa.global_width = 0;
      AttentionTensors inputs = make_inputs(c);
      const TokenLayout layout = make_token_layout(c.layout);
      inputs.q.add_(2);
      inputs.k.narrow(1, layout.block_offsets[2], layout.block_offsets[3] - layout.block_offsets[2])
          .fill_(-2);
      const AttentionResult run = run_alone(c, inputs);
      const MethodChoice choice = choice_of(c, run.selection);
      const at::Tensor unselected = selected_tokens(choice, layout.tokens()).logical_not();
      EXPECT_TRUE(unselected.any().item<bool>()) << c.problem();
      const at::Tensor rows = unselected.transpose(1, 2).unsqueeze(-1);
      EXPECT_FALSE(run.dk.ne(0).logical_and(rows).any().item<bool>()) << c.problem();
      EXPECT_FALSE(run.dv.ne(0).logical_and(rows).any().item<bool>()) << c.problem();
      if (!choice.source.defined()) continue;
      const at::Tensor kept = at::zeros({c.batch, c.heads, layout.tokens()}, at::kBool);
      kept.scatter_(2, choice.source, true);
      const at::Tensor pruned = kept.logical_not().transpose(1, 2).unsqueeze(-1);
      EXPECT_TRUE(pruned.any().item<bool>()) << c.problem();
      EXPECT_FALSE(run.dq.ne(0).logical_and(pruned).any().item<bool>()) << c.problem();
    }
  }
}

}  // namespace
}  // namespace sprocket::parallel::testing

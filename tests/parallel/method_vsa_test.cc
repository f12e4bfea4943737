// VSA with every option, fp64, against the reference.
#include <gtest/gtest.h>

#include "tests/parallel/method_expectations.h"

namespace sprocket::parallel::testing {
namespace {

AttentionCase vsa(const char* sparsity) {
  AttentionCase c;
  c.heads = 2;
  c.spec.method = MethodKind::kVsa;
  c.spec.vsa.sparsity = Decimal::parse(sparsity);
  c.label = std::string("sparsity_") + sparsity;
  return c;
}

AttentionCase with_prefix(AttentionCase c, kernels::PrefixRule rule) {
  c.layout.prefix = {5, 0, 37};
  c.layout.prefix_block_tokens = 16;
  c.spec.vsa.prefix = rule;
  c.label += rule == kernels::PrefixRule::kExempt ? "_exempt" : "_compete";
  return c;
}

constexpr auto kRules = {kernels::PrefixRule::kExempt, kernels::PrefixRule::kCompete};

TEST(VsaMethod, Shapes) {
  for (const auto& c : cases_of(MethodKind::kVsa)) expect_exact_shapes(c);
}

TEST(VsaMethod, Sparsities) {
  for (const char* sparsity : {"0", "0.5", "0.9", "0.999"}) {
    expect_exact(vsa(sparsity));
    for (const auto rule : kRules) expect_exact(with_prefix(vsa(sparsity), rule));
  }
  AttentionCase c = vsa("0.95");  // of 20 blocks: 1, not 2
  c.layout.grid = {16, 20, 3};
  const Reference reference = expect_exact(c);
  EXPECT_EQ(reference.choice.selected.sum().item<int>(), c.batch * c.heads * 20);
}

TEST(VsaMethod, CoarseBranchesAndGates) {
  for (const auto coarse : {CoarseBranch::kGated, CoarseBranch::kAdd, CoarseBranch::kNone}) {
    for (const bool fine_gate : {false, true}) {
      AttentionCase c = vsa("0.7");
      c.spec.vsa.coarse = coarse;
      c.spec.vsa.fine_gate = fine_gate;
      expect_exact(c);
      expect_exact(with_prefix(c, kernels::PrefixRule::kExempt));
    }
  }
}

TEST(VsaMethod, ScoresOfSubBlocks) {
  for (const auto& [query_parts, key_parts] :
       {std::pair{1, 8}, {8, 1}, {4, 4}, {2, 16}, {64, 64}}) {
    AttentionCase c = vsa("0.8");
    c.spec.vsa.query_parts = query_parts;
    c.spec.vsa.key_parts = key_parts;
    expect_exact(c);
    for (const auto rule : kRules) expect_exact(with_prefix(c, rule));
    c.inputs.q_factor = 16;
    expect_exact(c);
    c.inputs = {1, 0, true};
    expect_exact(c);
  }
}

TEST(VsaMethod, PrefixSegments) {
  using Lengths = std::vector<int64_t>;
  for (const Lengths& lengths : {Lengths{0, 0}, {1}, {64}, {65, 3}, {0, 200, 0, 7}}) {
    for (const auto rule : kRules) {
      AttentionCase c = with_prefix(vsa("0.8"), rule);
      c.layout.prefix = lengths;
      c.layout.prefix_block_tokens = 64;
      expect_exact(c);
      c.inputs.constant = true;
      expect_exact(c);
    }
  }
}

TEST(VsaMethod, BudgetsBesidePrefixAndSubBlocks) {
  for (const auto rule : kRules) {
    for (const auto& [coverage, group] : {std::pair{"0", 0}, {"0.2", 1}, {"0.4", 2}, {"1", 0}}) {
      AttentionCase c = with_prefix(vsa("0.7"), rule);
      c.layout.grid = {8, 9, 6};
      c.layout.domains = 4;
      c.spec.budget.max_coverage = {Decimal::parse(coverage)};
      c.spec.budget.head_group = group;
      expect_exact(c);
      c.spec.vsa.key_parts = 4;
      expect_exact(c);
    }
  }
}

}  // namespace
}  // namespace sprocket::parallel::testing

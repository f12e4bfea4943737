// PSA with every option, fp64, against the reference.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/parallel/method_expectations.h"

namespace sprocket::parallel::testing {
namespace {

using kernels::LevelRule;
using kernels::SampledScore;

std::vector<Decimal> decimals(std::initializer_list<const char*> texts) {
  std::vector<Decimal> result;
  for (const char* text : texts) result.push_back(Decimal::parse(text));
  return result;
}

AttentionCase psa(LevelRule rule) {
  AttentionCase c;
  c.heads = 2;
  c.layout.order = BlockOrder::kHilbert;
  c.layout.block_tokens = 19;  // rests of 1, 3 and 3 tokens
  c.spec.method = MethodKind::kPsa;
  c.spec.psa.levels.rule = rule;
  c.spec.psa.levels.thresholds = decimals({".4", ".5", ".6", ".8"});
  c.spec.psa.levels.quotas = decimals({".1", ".05", ".1", ".2"});
  c.label = std::to_string(static_cast<int>(rule));
  return c;
}

constexpr auto kRules = {LevelRule::kPaper, LevelRule::kCover, LevelRule::kQuota};

// Share of the pairs of blocks at a level.
double share(const Reference& reference, int level) {
  const at::Tensor s = reference.choice.selected;
  return s.view({s.size(0), s.size(1), s.size(2), s.size(3) / 4, 4})
      .select(4, level - 1)
      .to(at::kDouble)
      .mean()
      .item<double>();
}

TEST(PsaMethod, Shapes) {
  for (const auto& c : cases_of(MethodKind::kPsa)) expect_exact_shapes(c);
}

TEST(PsaMethod, RulesScoresAndSamples) {
  for (const auto rule : kRules) {
    for (const auto score : {SampledScore::kSoftmax, SampledScore::kExpMinusMax}) {
      for (const int samples : {0, 1, 5}) {
        AttentionCase c = psa(rule);
        c.spec.psa.score = score;
        c.spec.psa.sampling = {samples, 9, 4};
        expect_exact(c);
        c.inputs.constant = true;
        expect_exact(c);
        c.inputs = {16, 0, false};
        expect_exact(c);
      }
    }
  }
}

TEST(PsaMethod, EveryLevelOccurs) {
  for (const auto rule : kRules) {
    AttentionCase c = psa(rule);
    c.layout.block_tokens = 9;
    const Reference reference = expect_exact(c);
    for (int level = 1; level <= 4; ++level) EXPECT_GT(share(reference, level), 0) << level;
  }
}

TEST(PsaMethod, BlocksOfEveryLength) {
  for (const int block_tokens : {1, 2, 3, 5, 8, 15, 64, 1000}) {
    AttentionCase c = psa(LevelRule::kQuota);
    c.layout.grid = {3, 5, 6};
    c.layout.block_tokens = block_tokens;
    c.spec.psa.levels.quotas = decimals({".1", ".2", ".3", ".3"});
    expect_exact(c);
  }
}

TEST(PsaMethod, Cubes) {
  AttentionCase c = psa(LevelRule::kCover);
  c.layout.order = BlockOrder::kKd;
  expect_exact(c);
  c.layout.cube = {2, 3, 5};
  expect_exact(c);
}

TEST(PsaMethod, SimilarityCaps) {
  for (const auto rule : kRules) {
    const Reference free = expect_exact(psa(rule));
    for (const std::vector<double>& caps :
         {std::vector{0.5, 0.4, 0.35}, {2.0, 2.0, 0.0}, {2.0, 2.0, 2.0}, {-2.0, -2.0, -2.0}}) {
      AttentionCase c = psa(rule);
      c.spec.psa.similarity = caps;
      c.layout.prefix = {3};
      expect_exact(c);
      c.inputs.correlation = 1.5;
      const Reference capped = expect_exact(c);
      if (caps[2] > 1) {
        EXPECT_EQ(share(capped, 2) + share(capped, 3) + share(capped, 4), 0);
      }
    }
    EXPECT_GT(share(free, 4), 0);
  }
}

TEST(PsaMethod, ThresholdsAndLeastFinest) {
  for (const auto rule : {LevelRule::kPaper, LevelRule::kCover}) {
    for (const auto& thresholds :
         {decimals({".5", ".6", ".7", ".8"}), decimals({"0", "0", "0", "0"}),
          decimals({"1", "1", "1", "1"}), decimals({".2", ".2", ".9", "1"})}) {
      for (const char* least : {"0", ".5", "1"}) {
        AttentionCase c = psa(rule);
        c.spec.psa.levels.thresholds = thresholds;
        c.spec.psa.levels.least_finest = Decimal::parse(least);
        expect_exact(c);
      }
    }
  }
}

TEST(PsaMethod, RowsThatSelectNothing) {
  AttentionCase c = psa(LevelRule::kPaper);
  c.inputs.q_factor = 64;
  c.layout.block_tokens = 60;
  c.spec.psa.levels.thresholds = decimals({".05", ".1", ".15", ".2"});
  const Reference reference = expect_exact(c);
  EXPECT_TRUE(reference.result.lse.isinf().any().item<bool>());
  AttentionCase none = psa(LevelRule::kQuota);
  none.spec.psa.levels.quotas = decimals({"0", "0", "0", "0"});
  EXPECT_EQ(expect_exact(none).result.out.abs().max().item<double>(), 0);
}

TEST(PsaMethod, PrefixSegments) {
  using Lengths = std::vector<int64_t>;
  for (const auto rule : kRules) {
    for (const Lengths& lengths : {Lengths{0}, {1}, {70, 0, 5}}) {
      AttentionCase c = psa(rule);
      c.layout.prefix = lengths;
      expect_exact(c);
    }
  }
}

}  // namespace
}  // namespace sprocket::parallel::testing

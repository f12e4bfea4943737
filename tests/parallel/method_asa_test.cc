// ASA with every option, fp64, against the reference.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/comm/thread_ranks.h"
#include "tests/parallel/method_expectations.h"

namespace sprocket::parallel::testing {
namespace {

using kernels::SampledScore;

AttentionCase asa() {
  AttentionCase c;
  c.heads = 2;
  c.layout.order = BlockOrder::kHilbert;
  c.layout.block_tokens = 16;
  c.spec.method = MethodKind::kAsa;
  c.spec.asa.selection.most = Decimal::parse("0.6");
  return c;
}

TEST(AsaMethod, Shapes) {
  for (const auto& c : cases_of(MethodKind::kAsa)) expect_exact_shapes(c);
  expect_exact_shapes(asa());
}

TEST(AsaMethod, MassCrossingScoresAndSamples) {
  for (const char* mass : {"0", "0.3", "0.95", "1"}) {
    for (const bool include_crossing : {false, true}) {
      for (const auto score : {SampledScore::kSoftmax, SampledScore::kExpMinusMax}) {
        for (const int samples : {0, 3}) {
          AttentionCase c = asa();
          c.label = mass;
          c.spec.asa.selection.mass = Decimal::parse(mass);
          c.spec.asa.selection.include_crossing = include_crossing;
          c.spec.asa.score = score;
          c.spec.asa.sampling = {samples, 1, 2};
          c.inputs.q_factor = 4;
          expect_exact(c);
          c.inputs = {1, 0, true};
          expect_exact(c);
        }
      }
    }
  }
}

TEST(AsaMethod, Bounds) {
  for (const auto& [least, most] :
       {std::pair{"0", "1"}, {"0.05", "0.17"}, {"0.5", "0.5"}, {"0", "0.001"}, {"1", "1"}}) {
    AttentionCase c = asa();
    c.spec.asa.selection.least = Decimal::parse(least);
    c.spec.asa.selection.most = Decimal::parse(most);
    c.spec.asa.selection.mass = Decimal::parse("0.5");
    expect_exact(c);
    c.layout.prefix = {40, 0};
    expect_exact(c);
  }
}

TEST(AsaMethod, GlobalTokens) {
  for (const int width : {1, 2, 6, 15, 30, 5000}) {
    for (const bool prefix : {false, true}) {
      AttentionCase c = asa();
      c.label = std::to_string(width);
      c.spec.asa.global_width = width;
      if (prefix) c.layout.prefix = {3, 0, 18};
      expect_exact(c);
      c.layout.order = BlockOrder::kKd;
      expect_exact(c);
      c.inputs.q_factor = 16;
      expect_exact(c);
    }
  }
}

TEST(AsaMethod, GlobalTokensWithoutSelectedBlocks) {
  for (const int width : {1, 4, 8, 16}) {
    for (const auto& prefix : {std::vector<int64_t>{}, {3, 0, 18}}) {
      AttentionCase c = asa();
      c.label = std::to_string(width);
      c.layout.prefix = prefix;
      c.spec.asa.global_width = width;
      c.spec.asa.exclude_selected = true;
      expect_exact(c);
      c.inputs.constant = true;
      expect_exact(c);
    }
  }
}

// A group that straddles blocks cannot be left out.
TEST(AsaMethod, RefusesToExcludeStraddlingGroups) {
  AttentionCase c = asa();
  c.spec.asa.global_width = 6;
  c.spec.asa.exclude_selected = true;
  const AttentionTensors inputs = make_inputs(c);
  EXPECT_THROW(run_alone(c, inputs), comm::testing::RanksFailed);
}

TEST(AsaMethod, GroupsThatStraddleShards) {
  for (const auto outer :
       {OuterStrategyKind::kSelected, OuterStrategyKind::kRing, OuterStrategyKind::kAllGather}) {
    for (const int width : {7, 50, 300}) {  // the last two reach over several ranks
      AttentionCase c = asa();
      c.spec.asa.global_width = width;
      c.layout.prefix = {9};
      c.mesh = {1, 5, 1};
      c.strategy.outer = outer;
      expect_exact(c);
    }
  }
}

}  // namespace
}  // namespace sprocket::parallel::testing

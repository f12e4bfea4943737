// BSA with every option, fp64, against the reference.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/parallel/method_expectations.h"

namespace sprocket::parallel::testing {
namespace {

using kernels::PruningCentre;
using kernels::PruningRecovery;
using kernels::ThresholdRule;

AttentionCase bsa() {
  AttentionCase c;
  c.heads = 2;
  c.spec.method = MethodKind::kBsa;
  c.spec.bsa.threshold.min_blocks = 1;
  c.spec.bsa.threshold.tau = 0.5;
  return c;
}

int64_t kept_queries(const Reference& reference) {
  const at::Tensor tokens = at::arange(reference.choice.source.size(2), at::kLong);
  return (reference.choice.source == tokens).sum().item<int64_t>();
}

TEST(BsaMethod, Shapes) {
  for (const auto& c : cases_of(MethodKind::kBsa)) expect_exact_shapes(c);
}

TEST(BsaMethod, PruningOptions) {
  for (const auto centre : {PruningCentre::kPackedMiddle, PruningCentre::kGeometric}) {
    for (const auto recovery :
         {PruningRecovery::kNearestPosition, PruningRecovery::kNearestIndex}) {
      for (const int window : {0, 2, 3}) {
        AttentionCase c = bsa();
        c.spec.bsa.pruning.centre = centre;
        c.spec.bsa.pruning.recovery = recovery;
        c.spec.bsa.pruning.window = {window, window, window == 3 ? 0 : window};
        c.label = std::to_string(window);
        expect_exact(c);
      }
    }
  }
}

TEST(BsaMethod, KeepRatios) {
  int64_t before = 0;
  for (const char* ratio : {"0", "0.1", "0.29", "0.5", "0.999", "1"}) {
    AttentionCase c = bsa();
    c.label = ratio;
    c.spec.bsa.pruning.keep_ratio = Decimal::parse(ratio);
    const int64_t kept = kept_queries(expect_exact(c));
    EXPECT_GT(kept, before);
    before = kept;
    c.inputs.constant = true;
    expect_exact(c);
  }
}

TEST(BsaMethod, RedundantBlocksKeepFewer) {
  AttentionCase c = bsa();
  c.label = "redundant";
  const int64_t plain = kept_queries(expect_exact(c));
  c.spec.bsa.pruning.redundant_keep_ratio = Decimal::parse("0.2");
  std::vector<int64_t> kept;
  for (const double threshold : {1.1, 0.0, -1.1}) {
    c.spec.bsa.pruning.redundancy_threshold = threshold;
    for (const int window : {0, 2}) {
      c.spec.bsa.pruning.window = {window, window, window};
      kept.push_back(kept_queries(expect_exact(c)));
    }
  }
  EXPECT_EQ(kept[0], plain);
  EXPECT_LT(kept[2], kept[0]);
  EXPECT_LT(kept[4], kept[2]);
  c.layout.grid = {1, 9, 6};  // no frame before
  c.spec.bsa.pruning.window = {0, 0, 0};
  EXPECT_EQ(kept_queries(expect_exact(c)), c.batch * c.heads * (4 * (8 + 8 + 2) / 2 - 9));
}

TEST(BsaMethod, MassRule) {
  for (const double tau : {1e-6, 0.3, 0.9, 1.0}) {
    for (const int least : {1, 4, 100}) {
      AttentionCase c = bsa();
      c.label = std::to_string(tau);
      c.spec.bsa.threshold.tau = tau;
      c.spec.bsa.threshold.min_blocks = least;
      c.inputs.q_factor = 4;
      expect_exact(c);
      c.inputs = {1, 0, true};
      expect_exact(c);
    }
  }
}

TEST(BsaMethod, ValueRule) {
  for (const char* sparsity : {"0", "0.5", "0.9", "0.999"}) {
    for (const int least : {1, 5}) {
      AttentionCase c = bsa();
      c.label = sparsity;
      c.spec.bsa.threshold.rule = ThresholdRule::kValue;
      c.spec.bsa.threshold.sparsity = Decimal::parse(sparsity);
      c.spec.bsa.threshold.min_blocks_value = least;
      expect_exact(c);
      c.layout.prefix = {3, 0, 20};
      expect_exact(c);
      c.inputs.constant = true;
      expect_exact(c);
    }
  }
}

TEST(BsaMethod, PrefixesAndOrders) {
  for (const auto order : {BlockOrder::kRaster, BlockOrder::kKd, BlockOrder::kCubeHilbert}) {
    for (const bool prefix : {false, true}) {
      AttentionCase c = bsa();
      c.layout.order = order;
      c.layout.cube = {2, 3, 4};
      if (prefix) c.layout.prefix = {3, 0, 70};
      expect_exact(c);
    }
  }
}

}  // namespace
}  // namespace sprocket::parallel::testing

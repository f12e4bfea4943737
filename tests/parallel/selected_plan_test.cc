#include <gtest/gtest.h>

#include "parallel/attention/selected_plan.h"
#include "parallel/traffic.h"

namespace sprocket::parallel {
namespace {

// Four blocks of 3, 1, 2 and 5 rows on ranks {0, 1 | 2 | 3}.
OuterShards shards_of(int self) { return {{0, 3, 4, 6, 11}, {0, 2, 3, 4}, self}; }

std::vector<NeedBitmap> some_needs() {
  std::vector<NeedBitmap> needs(3, NeedBitmap(2, 4));
  needs[0].set(0, 2), needs[0].set(1, 3), needs[0].set(0, 0);
  needs[1].set(1, 0), needs[1].set(1, 1), needs[1].set(0, 1);
  return needs;
}

TEST(SelectedPlan, BothSidesDeriveTheSameMessage) {
  const auto needs = some_needs();
  std::vector<SelectedPlan> plans;
  for (int rank = 0; rank < 3; ++rank)
    plans.push_back(plan_selected_exchange(shards_of(rank), needs, {0, 2}, 4));
  for (int from = 0; from < 3; ++from) {
    for (int to = 0; to < 3; ++to) {
      EXPECT_EQ(plans[from].send[to], plans[to].receive[from]);
      EXPECT_EQ(plans[from].exchange.send[to].count, plans[to].exchange.receive[from].count);
    }
  }
}

TEST(SelectedPlan, OrdersEntriesByHeadThenBlockAndCountsKAndV) {
  const SelectedPlan plan = plan_selected_exchange(shards_of(0), some_needs(), {0, 2}, 4);
  const std::vector<SelectedEntry> expected{{0, 1, 1, 0}, {1, 0, 3, 1}, {1, 1, 1, 4}};
  EXPECT_EQ(plan.send[1], expected);
  EXPECT_EQ(plan.send_rows[1], 5);
  EXPECT_EQ(plan.exchange.send[1].count, 2 * 5 * 4);
  EXPECT_TRUE(plan.send[0].empty());  // own blocks never travel
  EXPECT_TRUE(plan.send[2].empty());  // rank 2 needs nothing
  EXPECT_EQ(plan.receive_rows, (std::vector<int64_t>{0, 2, 5}));
}

TEST(SelectedPlan, CoverageCountsRemotePairsOnly) {
  const auto needs = some_needs();
  using Shares = std::vector<kernels::Share>;
  EXPECT_EQ(head_coverage(shards_of(0), needs[0], 2), (Shares{{1, 2}, {1, 2}}));  // (0,2), (1,3)
  EXPECT_EQ(head_coverage(shards_of(0), needs[0], 1), (Shares{{2, 4}})) << "2 samples";
  EXPECT_EQ(kernels::total_of(head_coverage(shards_of(1), needs[1], 2)), (kernels::Share{3, 6}));
  EXPECT_EQ(kernels::total_of(head_coverage(shards_of(2), needs[2], 2)).part, 0);
}

// The formulas of the header's table, on even shards.
TEST(Traffic, ReducesToTheTextbookFormulas) {
  const TokenLayout layout = make_token_layout({{8, 16, 16}, {4, 4, 4}, BlockOrder::kKd, 1});
  for (int outer : {2, 4}) {
    for (int ulysses : {1, 2, 4}) {
      const ShardPlan plan = make_shard_plan(layout, {1, outer, ulysses});
      const AttentionShape shape{1, 4, 16, DType::kBF16};
      const int64_t u = layout.tokens() / (outer * ulysses) * 4 * 16 * 2;
      const auto bytes = [&](OuterStrategyKind kind, bool keep, Phase phase, const char* group) {
        const OuterShards shards = outer_shards(layout, plan, 0);
        const SelectedRows everything = selected_rows_bound(layout, shards, 1, 4 / ulysses, {});
        int64_t sum = 0;
        for (const auto& row :
             attention_traffic(layout, plan, 0, shape, {kind, keep, 1}, everything)) {
          if (row.phase == phase && row.group == group && row.what != "need bitmaps")
            sum += row.bytes;
        }
        return sum;
      };
      using enum OuterStrategyKind;
      EXPECT_EQ(bytes(kRing, true, Phase::kForward, "sp.outer"), 2 * (outer - 1) * u);
      EXPECT_EQ(bytes(kRing, true, Phase::kBackward, "sp.outer"),
                2 * (outer - 1) * u + 4 * outer * u);
      EXPECT_EQ(bytes(kAllGather, true, Phase::kForward, "sp.outer"), 2 * (outer - 1) * u);
      EXPECT_EQ(bytes(kAllGather, true, Phase::kBackward, "sp.outer"), 2 * (outer - 1) * u);
      EXPECT_EQ(bytes(kAllGather, false, Phase::kBackward, "sp.outer"), 4 * (outer - 1) * u);
      EXPECT_EQ(bytes(kSelected, true, Phase::kForward, "sp.outer"), 2 * (outer - 1) * u);  // c = 1
      EXPECT_EQ(bytes(kSelected, false, Phase::kBackward, "sp.outer"), 4 * (outer - 1) * u);
      EXPECT_EQ(bytes(kSelected, true, Phase::kForward, "sp.ulysses"),
                4 * u * (ulysses - 1) / ulysses);
      EXPECT_EQ(bytes(kSelected, true, Phase::kBackward, "sp.ulysses"),
                4 * u * (ulysses - 1) / ulysses);
    }
  }
}

}  // namespace
}  // namespace sprocket::parallel

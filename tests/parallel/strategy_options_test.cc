// Options of the strategies: which of them leave every bit alone, and what the others may change.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "parallel/attention/selected_plan.h"
#include "tests/comm/thread_ranks.h"
#include "tests/parallel/method_reference.h"

namespace sprocket::parallel::testing {
namespace {

constexpr OuterStrategyKind kStrategies[] = {OuterStrategyKind::kSelected, OuterStrategyKind::kRing,
                                             OuterStrategyKind::kAllGather};

std::vector<AttentionResult> run_on_ranks(const AttentionCase& c, const AttentionTensors& inputs) {
  std::vector<AttentionResult> results(c.mesh.world());
  comm::testing::run_ranks(c.mesh.world(), [&](comm::Communicator& world) {
    const Mesh mesh(world.split(0, world.rank(), "world"), c.mesh);
    results[world.rank()] = run_sharded(c, inputs, mesh);
  });
  return results;
}

void expect_same_bits(const AttentionCase& a, const AttentionCase& b) {
  const AttentionTensors inputs = make_inputs(a);
  const auto first = run_on_ranks(a, inputs), second = run_on_ranks(b, inputs);
  for (int rank = 0; rank < a.mesh.world(); ++rank) {
    EXPECT_TRUE(bitwise_equal(first[rank], second[rank])) << a.name() << " rank " << rank;
  }
}

// Every method in single and half precision, on a mesh of both axes.
template <class Visit>
void for_each_case(Visit visit) {
  for (AttentionCase c : method_cases()) {
    for (auto dtype : {at::kFloat, at::kBFloat16}) {
      c.dtype = dtype;
      c.mesh = {1, 3, 2};
      visit(c);
    }
  }
}

TEST(StrategyOptions, OverlapChangesNoBit) {
  for_each_case([](AttentionCase& c) {
    for (auto kind : kStrategies) {
      for (bool keep : {true, false}) {
        c.strategy.outer = kind;
        c.strategy.keep_remote_kv = keep;
        AttentionCase waiting = c;
        waiting.strategy.overlap = false;
        expect_same_bits(c, waiting);
      }
    }
  });
}

TEST(StrategyOptions, FetchingAgainChangesNoBit) {
  for_each_case([](AttentionCase& c) {
    for (auto kind : {OuterStrategyKind::kSelected, OuterStrategyKind::kAllGather}) {
      c.strategy.outer = kind;
      AttentionCase again = c;
      again.strategy.keep_remote_kv = false;
      expect_same_bits(c, again);
    }
  });
}

TEST(StrategyOptions, GatheringEverythingInsteadChangesNoBit) {
  for_each_case([](AttentionCase& c) {
    c.strategy.gather_above = 1;
    AttentionCase gathering = c;
    gathering.strategy.gather_above = 0;
    expect_same_bits(c, gathering);
    gathering.strategy.outer = OuterStrategyKind::kAllGather;
    expect_same_bits(c, gathering);
  });
}

TEST(StrategyOptions, HeadGroupsChangeNoBit) {
  for (AttentionCase c : method_cases()) {
    for (auto dtype : {at::kFloat, at::kBFloat16}) {
      c.dtype = dtype;
      c.mesh = {1, 1, 2};
      c.strategy.head_groups = 1;
      AttentionCase grouped = c;
      grouped.strategy.head_groups = 3;
      expect_same_bits(c, grouped);
      grouped.strategy.overlap = false;
      expect_same_bits(c, grouped);
    }
  }
}

TEST(StrategyOptions, FetchingInGroupsOfHeadsChangesNoBit) {
  for_each_case([](AttentionCase& c) {
    c.strategy.outer = OuterStrategyKind::kSelected;
    c.strategy.gather_above = 1;
    c.strategy.head_groups = 1;
    AttentionCase grouped = c;
    for (int groups : {2, 3, 64}) {
      grouped.strategy.head_groups = groups;
      expect_same_bits(c, grouped);
    }
    grouped.strategy.keep_remote_kv = false;
    expect_same_bits(c, grouped);
  });
}

// Recomputation gives every group of heads its part of the selection.
TEST(StrategyOptions, HeadGroupsReuseASelection) {
  for (AttentionCase c : method_cases()) {
    c.mesh = {1, 1, 2};
    c.strategy.head_groups = 3;
    const AttentionTensors inputs = make_inputs(c);
    comm::testing::run_ranks(2, [&](comm::Communicator& world) {
      const Mesh mesh(world.split(0, world.rank(), "world"), c.mesh);
      AttentionSlot slot;
      const AttentionResult first = run_sharded(c, inputs, mesh, slot);
      EXPECT_TRUE(bitwise_equal(first, run_sharded(c, inputs, mesh, slot))) << c.name();
    });
  }
}

TEST(StrategyOptions, HeadsAreGroupedByThemselvesUnderUlyssesAlone) {
  AttentionSpec spec;
  EXPECT_EQ(head_groups({}, {1, 1, 2}, spec, 12), 2);
  EXPECT_EQ(head_groups({}, {1, 1, 4}, spec, 12), 1);  // three heads a rank
  EXPECT_EQ(head_groups({}, {1, 1, 1}, spec, 12), 1);
  EXPECT_EQ(head_groups({}, {1, 2, 2}, spec, 12), 1);
  spec.budget.head_group = 2;
  EXPECT_EQ(head_groups({}, {1, 1, 2}, spec, 12), 1);  // groups of three heads
  spec.budget.head_group = 3;
  EXPECT_EQ(head_groups({}, {1, 1, 2}, spec, 12), 2);
}

// With wide gradients dK and dV lose nothing on the way, so the strategies that sum in the same
// order agree in every bit even where the compute type is narrow.
TEST(StrategyOptions, WideGradientsAreCloserToTheWhole) {
  AttentionCase c;
  c.dtype = at::kBFloat16;
  c.spec.method = MethodKind::kVsa;
  c.spec.vsa.sparsity = Decimal::parse("0.5");
  c.mesh = {1, 4, 1};
  const AttentionTensors inputs = make_inputs(c);
  AttentionCase alone = c;
  alone.mesh = {};
  const AttentionResult whole = run_on_ranks(alone, inputs)[0];
  const ShardPlan plan = make_shard_plan(make_token_layout(c.layout), c.mesh);
  const auto error = [&](bool wide) {
    c.strategy.wide_gradients = wide;
    const auto ranks = run_on_ranks(c, inputs);
    double sum = 0;
    for (int rank = 0; rank < 4; ++rank) {
      const int64_t first = plan.rank_tokens[rank], count = plan.tokens_of(rank);
      for (const auto& [all, own] :
           {std::pair(whole.dk, ranks[rank].dk), {whole.dv, ranks[rank].dv}}) {
        sum += (all.narrow(1, first, count).to(at::kDouble) - own.to(at::kDouble))
                   .square()
                   .sum()
                   .item<double>();
      }
    }
    return sum;
  };
  EXPECT_LT(error(true), 0.5 * error(false));
}

// One pass in block order: output, LSE and dQ have the bits of one rank, dK and dV are exact.
TEST(StrategyOptions, ASinglePassHasTheBitsOfOneRank) {
  for (AttentionCase c : method_cases()) {
    // A global token across two shards is the mean of two partial sums.
    if (c.spec.asa.global_width > 0 && !c.spec.asa.exclude_selected) continue;
    for (auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
      for (auto kind : {OuterStrategyKind::kSelected, OuterStrategyKind::kAllGather}) {
        c.dtype = dtype;
        c.mesh = {};
        const AttentionTensors inputs = make_inputs(c);
        const AttentionResult whole = run_on_ranks(c, inputs)[0];
        c.strategy.outer = kind;
        c.strategy.single_pass = true;
        for (const MeshShape& mesh : {MeshShape{1, 3, 1}, MeshShape{1, 2, 2}}) {
          c.mesh = mesh;
          const ShardPlan plan = make_shard_plan(make_token_layout(c.layout), c.mesh);
          const auto ranks = run_on_ranks(c, inputs);
          for (int rank = 0; rank < c.mesh.world(); ++rank) {
            const int64_t first = plan.rank_tokens[rank], count = plan.tokens_of(rank);
            const auto& part = ranks[rank];
            const std::string where =
                fmt::format("{} {} rank {}", c.name(), at::toString(dtype), rank);
            EXPECT_TRUE(whole.out.narrow(1, first, count).equal(part.out)) << where;
            EXPECT_TRUE(whole.lse.narrow(1, first, count).equal(part.lse)) << where;
            EXPECT_TRUE(whole.dq.narrow(1, first, count).equal(part.dq)) << where;
            if (dtype == at::kDouble) {
              EXPECT_LE(largest_difference(whole, part, plan, rank), 1e-10);
            }
          }
        }
      }
    }
  }
}

TEST(StrategyOptions, ALayerGathersEverythingAboveItsShare) {
  // Three ranks of two, one and one blocks, one head.
  const OuterShards shards{{0, 4, 8, 12, 16}, {0, 2, 3, 4}, 0, {}, {}};
  std::vector<NeedBitmap> needs(3, NeedBitmap(1, 4));
  EXPECT_FALSE(gathers_everything(shards, needs, 0));  // nothing is needed
  needs[0].set(0, 2);
  needs[1].set(0, 2);  // its own
  // One of 2 + 3 + 3 remote pairs.
  EXPECT_TRUE(gathers_everything(shards, needs, 0.12));
  EXPECT_FALSE(gathers_everything(shards, needs, 0.125));
  for (auto& need : needs) {
    for (int block = 0; block < 4; ++block) need.set(0, block);
  }
  EXPECT_FALSE(gathers_everything(shards, needs, 1));
}

}  // namespace
}  // namespace sprocket::parallel::testing

// What the communicators counted equals the closed forms, exactly, on every rank.
#include <algorithm>
#include <map>
#include <numeric>

#include <gtest/gtest.h>

#include "parallel/attention/prefix_branch.h"
#include "parallel/traffic.h"
#include "tests/comm/thread_ranks.h"
#include "tests/parallel/attention_case.h"

namespace sprocket::parallel::testing {
namespace {

using Key = std::tuple<std::string, comm::OpKind, Phase>;
using Sums = std::map<Key, std::pair<int64_t, int64_t>>;  // bytes, messages

void add_counted(Sums& sums, const comm::Communicator& group, int64_t first_sequence) {
  for (const auto& record : group.recorder().since(first_sequence)) {
    auto& [bytes, messages] = sums[{group.name(), record.op, record.position.phase}];
    bytes += record.bytes_sent;
    messages += record.messages_sent;
  }
}

// By outer rank, of one Ulysses rank. Prefix queries need nothing.
std::vector<NeedBitmap> video_needs(const AttentionCase& c, const TokenLayout& layout,
                                    const ShardPlan& plan, int ulysses_rank,
                                    const std::vector<AttentionResult>& results) {
  std::vector<NeedBitmap> needs;
  for (int r = 0; r < c.mesh.outer; ++r) {
    const int prefix = std::clamp(layout.prefix_blocks() - plan.outer_blocks[r], 0,
                                  plan.outer_blocks[r + 1] - plan.outer_blocks[r]);
    const auto& table = results[r * c.mesh.ulysses + ulysses_rank].selection.table;
    needs.push_back(needs_of(*without_prefix_queries(table, prefix)));
  }
  return needs;
}

std::vector<SelectedPlan> plans_of(const AttentionCase& c, const OuterShards& shards,
                                   const std::vector<NeedBitmap>& needs) {
  std::vector<SelectedPlan> plans;
  for (const auto& heads : fetch_groups(c.strategy, needs[0].batch_heads)) {
    plans.push_back(plan_selected_exchange(shards, needs, heads, c.head_dim));
  }
  return plans;
}

Sums predicted(const AttentionCase& c, const TokenLayout& layout, const ShardPlan& plan, int rank,
               const std::vector<AttentionResult>& results) {
  const int degree = c.mesh.ulysses, outer_index = rank / degree;
  const OuterShards shards = key_segments(layout, plan, outer_index, c.spec);
  const auto needs = video_needs(c, layout, plan, rank % degree, results);
  SelectedRows rows = rows_of(plans_of(c, shards, needs));
  rows.gathered = gathers_everything(shards, needs, c.strategy.gather_above);
  const AttentionShape shape{c.batch, c.heads, c.head_dim, DType::kBF16, c.spec};
  Sums sums;
  for (const auto& row : attention_traffic(layout, plan, rank, shape, c.strategy, rows)) {
    auto& [bytes, messages] = sums[{row.group, row.op, row.phase}];
    bytes += row.bytes;
    messages += row.messages;
  }
  return sums;
}

class Traffic : public ::testing::TestWithParam<int> {};

TEST_P(Traffic, CountedEqualsClosedForm) {
  int number = 0;
  for (auto c : parity_cases(GetParam())) {
    c.dtype = at::kBFloat16;
    c.keep_lse = false;
    c.strategy.wide_gradients = ++number % 2 == 0;
    const AttentionTensors inputs = make_inputs(c);
    const TokenLayout layout = make_token_layout(c.layout);
    const ShardPlan plan = make_shard_plan(layout, c.mesh);
    std::vector<AttentionResult> results(GetParam());
    std::vector<Sums> counted(GetParam());
    std::vector<Timeline> timelines(GetParam());
    std::vector<comm::CommunicatorOptions> options(GetParam());
    for (int rank = 0; rank < GetParam(); ++rank) options[rank].timeline = &timelines[rank];
    comm::testing::run_ranks(options, [&](comm::Communicator& world) {
      const Mesh mesh(world.split(0, world.rank(), "world"), c.mesh);
      const int64_t outer_first = mesh.tensors().outer().recorder().next_sequence();
      const int64_t ulysses_first = mesh.tensors().ulysses().recorder().next_sequence();
      const int64_t sequence_first = mesh.sequence().recorder().next_sequence();
      results[world.rank()] = run_sharded(c, inputs, mesh);
      add_counted(counted[world.rank()], mesh.tensors().outer(), outer_first);
      add_counted(counted[world.rank()], mesh.tensors().ulysses(), ulysses_first);
      add_counted(counted[world.rank()], mesh.sequence(), sequence_first);
    });
    for (int rank = 0; rank < GetParam(); ++rank) {
      const Sums sums = predicted(c, layout, plan, rank, results);
      for (const auto& [key, value] : sums) {
        const auto& [group, op, phase] = key;
        EXPECT_EQ(counted[rank][key], value) << c.name() << " rank " << rank << " " << group << " "
                                             << name_of(op) << " " << name_of(phase);
      }
      for (const auto& [key, value] : counted[rank]) {
        EXPECT_TRUE(sums.count(key) || value.first == 0)
            << c.name() << ": unpredicted " << std::get<0>(key);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Worlds, Traffic, ::testing::Values(1, 2, 3, 4, 6, 8));

// What the dry run prints for a budget is never less than what a run needs.
TEST(TrafficBound, HoldsForBudgetedSelections) {
  for (const auto& c : parity_cases(4)) {
    if (c.layout.domains == 1) continue;
    const AttentionTensors inputs = make_inputs(c);
    const TokenLayout layout = make_token_layout(c.layout);
    const ShardPlan plan = make_shard_plan(layout, c.mesh);
    std::vector<AttentionResult> results(4);
    comm::testing::run_ranks(4, [&](comm::Communicator& world) {
      const Mesh mesh(world.split(0, world.rank(), "world"), c.mesh);
      results[world.rank()] = run_sharded(c, inputs, mesh);
    });
    for (int rank = 0; rank < 4; ++rank) {
      const int degree = c.mesh.ulysses;
      const OuterShards shards = key_segments(layout, plan, rank / degree, c.spec);
      const auto needs = video_needs(c, layout, plan, rank % degree, results);
      const SelectedRows actual = rows_of(plans_of(c, shards, needs));
      const SelectedRows bound =
          selected_rows_bound(layout, shards, c.batch, c.heads / degree, c.spec);
      for (int peer = 0; peer < c.mesh.outer; ++peer) {
        EXPECT_LE(actual.sent[peer], bound.sent[peer]) << c.name();
      }
      EXPECT_LE(std::accumulate(actual.received.begin(), actual.received.end(), int64_t{0}),
                std::accumulate(bound.received.begin(), bound.received.end(), int64_t{0}))
          << c.name();
    }
  }
}

}  // namespace
}  // namespace sprocket::parallel::testing

// Heads over Ulysses ranks by their work: the order, and that it changes no bit.
#include <algorithm>
#include <numeric>
#include <set>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/philox.h"
#include "parallel/attention/selection_heads.h"
#include "parallel/comm/recorder.h"
#include "parallel/head_balance.h"
#include "tests/comm/thread_ranks.h"
#include "tests/parallel/method_expectations.h"

namespace sprocket::parallel::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<int64_t> loads(const std::vector<int64_t>& cost, const std::vector<int>& order,
                           int ranks) {
  std::vector<int64_t> sums;
  for (int rank = 0; rank < ranks; ++rank) {
    int64_t& sum = sums.emplace_back(0);
    for (const int head : heads_of_rank(order, rank, ranks, static_cast<int>(cost.size()))) {
      sum += cost[head];
    }
  }
  return sums;
}

TEST(BalancedHeadOrder, TheDearestHeadGoesFirstToTheRankWithLeastWork) {
  const std::vector<int64_t> cost{9, 8, 7, 1, 1, 1};
  EXPECT_THAT(balanced_head_order(cost, 2, 1), ElementsAre(0, 3, 4, 1, 2, 5));
  EXPECT_THAT(balanced_head_order(cost, 3, 1), ElementsAre(0, 5, 1, 4, 2, 3));
}

// Dearest first alone: 9 + 5 + 5 against 7 + 7 + 1.
TEST(BalancedHeadOrder, TheBusiestRankExchangesHeadsWhileThatRelievesIt) {
  const std::vector<int64_t> cost{1, 7, 5, 7, 5, 9};
  const auto work = loads(cost, balanced_head_order(cost, 2, 1), 2);
  EXPECT_THAT(work, ElementsAre(17, 17));
}

TEST(BalancedHeadOrder, RunsStayTogether) {
  const std::vector<int64_t> cost{5, 5, 4, 4, 0, 1, 0, 0};
  EXPECT_THAT(balanced_head_order(cost, 2, 2), ElementsAre(0, 1, 6, 7, 2, 3, 4, 5));
}

TEST(BalancedHeadOrder, ChangesNothingWithoutGain) {
  EXPECT_THAT(balanced_head_order(std::vector<int64_t>{3, 3, 3, 3}, 2, 1), IsEmpty());
  EXPECT_THAT(balanced_head_order(std::vector<int64_t>{0, 0, 0, 0}, 2, 1), IsEmpty());
  EXPECT_THAT(balanced_head_order(std::vector<int64_t>{9, 1, 2, 3}, 4, 1), IsEmpty());
  EXPECT_THAT(balanced_head_order(std::vector<int64_t>{9, 1, 2, 3}, 1, 1), IsEmpty());
}

TEST(BalancedHeadOrder, IsAPermutationOfWholeRunsThatIsNeverWorse) {
  const RandomStream random(3, 0, 0, RandomPurpose::kTest);
  uint64_t draw = 0;
  int moved = 0;
  for (int trial = 0; trial < 400; ++trial) {
    const int ranks = 1 + static_cast<int>(random.below(draw++, 6));
    const int unit = 1 + static_cast<int>(random.below(draw++, 3));
    const int heads = ranks * unit * (1 + static_cast<int>(random.below(draw++, 5)));
    std::vector<int64_t> cost(heads);
    for (int64_t& value : cost) {
      value = static_cast<int64_t>(random.below(draw++, trial % 3 == 0 ? 3 : 1000000));
    }
    const std::vector<int> order = balanced_head_order(cost, ranks, unit);
    EXPECT_EQ(order, balanced_head_order(cost, ranks, unit));
    EXPECT_LE(std::ranges::max(loads(cost, order, ranks)),
              std::ranges::max(loads(cost, {}, ranks)));
    if (order.empty()) continue;
    ++moved;
    std::vector<int> sorted = order;
    std::sort(sorted.begin(), sorted.end());
    for (int h = 0; h < heads; ++h) {
      EXPECT_EQ(sorted[h], h);
      EXPECT_EQ(order[h] % unit, h % unit);
      EXPECT_EQ(order[h] - order[h] % unit, order[h - h % unit]);
      if (h % (heads / ranks) != 0) {
        EXPECT_GT(order[h], order[h - 1]);
      }
    }
  }
  EXPECT_GT(moved, 100);
}

// Methods whose heads differ in work.
std::vector<AttentionCase> uneven_cases() {
  std::vector<AttentionCase> cases;
  for (AttentionCase c : method_cases()) {
    const MethodKind method = c.spec.method;
    if (method != MethodKind::kBsa && method != MethodKind::kPsa && method != MethodKind::kAsa) {
      continue;
    }
    if (method == MethodKind::kAsa) {
      c.spec.asa.selection.mass = Decimal::parse("0.6");
      c.spec.asa.selection.most = Decimal::parse("1");
    }
    c.heads = 8;
    cases.push_back(c);
  }
  return cases;
}

// Half of the heads, next to each other, look at little; other ones in every step.
AttentionTensors step_inputs(const AttentionCase& c, int step) {
  AttentionTensors inputs = make_inputs(c);
  for (int h = 0; h < c.heads; ++h) {
    const bool sharp = (h + 3 * step) % c.heads < c.heads / 2;
    inputs.q.select(2, h).mul_(sharp ? 16 : 0.25 * (1 + h % 3));
  }
  return inputs;
}

constexpr int kSteps = 3;

using Steps = std::vector<std::vector<AttentionResult>>;  // [step][rank]

Steps run_steps(const AttentionCase& c) {
  Steps steps(kSteps, std::vector<AttentionResult>(c.mesh.world()));
  std::vector<AttentionTensors> inputs;
  for (int step = 0; step < kSteps; ++step) inputs.push_back(step_inputs(c, step));
  comm::testing::run_ranks(c.mesh.world(), [&](comm::Communicator& world) {
    const Mesh mesh(world.split(0, world.rank(), "world"), c.mesh);
    SequenceAttention attention(mesh, make_token_layout(c.layout), c.strategy);
    for (int step = 0; step < kSteps; ++step) {
      AttentionSlot slot;
      steps[step][world.rank()] = run_sharded(c, inputs[step], mesh, attention, slot);
    }
  });
  return steps;
}

void expect_same_tensors(const AttentionResult& a, const AttentionResult& b,
                         const std::string& where) {
  const std::pair<at::Tensor, at::Tensor> pairs[] = {
      {a.out, b.out}, {a.lse, b.lse}, {a.dq, b.dq}, {a.dk, b.dk}, {a.dv, b.dv}};
  for (size_t i = 0; i < std::size(pairs); ++i) {
    EXPECT_TRUE(pairs[i].first.equal(pairs[i].second)) << where << " tensor " << i;
  }
}

// The table of a head of the model, wherever it is among the ranks of one outer rank.
kernels::SegmentTable table_of(const AttentionCase& c, const std::vector<AttentionResult>& ranks,
                               int outer, int head) {
  const std::vector<int>& order = ranks[0].selection.head_order;
  const int own = c.heads / c.mesh.ulysses;
  const int place =
      order.empty() ? head : static_cast<int>(std::ranges::find(order, head) - order.begin());
  const Selection& held = ranks[outer * c.mesh.ulysses + place / own].selection;
  return *heads_of(held, place % own, 1).table;
}

// Sums over the ranks.
std::vector<int64_t> pairs_of(const std::vector<AttentionResult>& ranks) {
  std::vector<int64_t> sums(ranks[0].statistics.pairs.size());
  for (const AttentionResult& rank : ranks) {
    for (size_t h = 0; h < sums.size(); ++h) sums[h] += rank.statistics.pairs[h];
  }
  return sums;
}

void expect_no_bit_changed(AttentionCase c, const std::string& what) {
  c.strategy.balance_heads = true;
  const Steps balanced = run_steps(c);
  c.strategy.balance_heads = false;
  const Steps plain = run_steps(c);
  std::set<std::vector<int>> orders;
  for (int step = 0; step < kSteps; ++step) {
    const std::string where = fmt::format("{} {} step {}", c.name(), what, step);
    orders.insert(balanced[step][0].selection.head_order);
    for (int rank = 0; rank < c.mesh.world(); ++rank) {
      EXPECT_EQ(balanced[step][rank].selection.head_order, balanced[step][0].selection.head_order);
      EXPECT_THAT(plain[step][rank].selection.head_order, IsEmpty());
      expect_same_tensors(balanced[step][rank], plain[step][rank], where);
    }
    for (int outer = 0; outer < c.mesh.outer; ++outer) {
      for (int head = 0; head < c.heads; ++head) {
        EXPECT_EQ(table_of(c, balanced[step], outer, head), table_of(c, plain[step], outer, head))
            << where << " head " << head;
      }
    }
    EXPECT_EQ(pairs_of(balanced[step]), pairs_of(plain[step])) << where;
  }
  EXPECT_THAT(balanced[0][0].selection.head_order, IsEmpty());
  EXPECT_GT(orders.size(), 1u) << c.name() << " " << what;
}

TEST(HeadBalance, ChangesNoBit) {
  for (AttentionCase c : uneven_cases()) {
    for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
      for (const MeshShape& mesh : {MeshShape{1, 1, 2}, MeshShape{1, 1, 4}, MeshShape{1, 2, 2}}) {
        c.dtype = dtype;
        c.mesh = mesh;
        expect_no_bit_changed(c, at::toString(dtype));
      }
    }
  }
}

TEST(HeadBalance, ChangesNoBitUnderAnyStrategyAndInAnyGroups) {
  for (AttentionCase c : uneven_cases()) {
    c.dtype = at::kFloat;
    c.mesh = {1, 3, 2};
    for (const auto outer : {OuterStrategyKind::kRing, OuterStrategyKind::kAllGather}) {
      c.strategy.outer = outer;
      expect_no_bit_changed(c, "");
    }
    c.mesh = {1, 1, 2};
    for (const int groups : {1, 4}) {
      c.strategy.head_groups = groups;
      expect_no_bit_changed(c, fmt::format("{} groups", groups));
    }
  }
}

// Groups of heads that compete for one budget move as one.
TEST(HeadBalance, ChangesNoBitUnderABudget) {
  for (AttentionCase c : uneven_cases()) {
    c.dtype = at::kFloat;
    c.layout.domains = 4;
    c.spec.budget.max_coverage = {Decimal::parse("0.6")};
    c.spec.budget.head_group = 2;
    for (const MeshShape& mesh : {MeshShape{1, 1, 2}, MeshShape{1, 2, 2}}) {
      c.mesh = mesh;
      for (const auto form : {kernels::BudgetForm::kFlat, kernels::BudgetForm::kTree}) {
        c.spec.budget.form = form;
        expect_no_bit_changed(c, "budget");
      }
    }
  }
}

TEST(HeadBalance, EqualsOneRankWithItsStatistics) {
  for (AttentionCase c : uneven_cases()) {
    c.dtype = at::kFloat;
    c.layout.domains = 4;
    c.spec.budget.max_coverage = {Decimal::parse("0.6")};
    c.spec.budget.head_group = 1;
    c.mesh = {1, 1, 2};
    const Steps steps = run_steps(c);
    ASSERT_FALSE(steps.back()[0].selection.head_order.empty());
    const ShardPlan plan = make_shard_plan(make_token_layout(c.layout), c.mesh);
    AttentionCase alone = c;
    alone.mesh = {};
    const AttentionResult whole = run_alone(alone, step_inputs(c, kSteps - 1));
    for (int rank = 0; rank < 2; ++rank) {
      EXPECT_EQ(largest_difference(whole, steps.back()[rank], plan, rank), 0) << c.name();
    }
    const AttentionStatistics &a = steps.back()[0].statistics, &b = steps.back()[1].statistics;
    for (int h = 0; h < c.heads; ++h) {
      EXPECT_EQ(a.pairs[h] + b.pairs[h], whole.statistics.pairs[h]);
      EXPECT_TRUE(a.pairs[h] == 0 || b.pairs[h] == 0);
      for (const auto shares :
           {&AttentionStatistics::domain_coverage, &AttentionStatistics::kept_mass}) {
        kernels::Share sum = (a.*shares)[h];
        sum += (b.*shares)[h];
        EXPECT_EQ(sum, (whole.statistics.*shares)[h]) << c.name() << " head " << h;
      }
    }
  }
}

// What the ranks have to do in equal steps: the first is not planned, later ones are, alike.
TEST(HeadBalance, EvensTheWork) {
  for (AttentionCase c : uneven_cases()) {
    c.mesh = {1, 1, 2};
    const AttentionTensors inputs = step_inputs(c, 0);
    std::vector<std::vector<int64_t>> work(3, std::vector<int64_t>(2));  // [step][rank]
    comm::testing::run_ranks(2, [&](comm::Communicator& world) {
      const Mesh mesh(world.split(0, world.rank(), "world"), c.mesh);
      SequenceAttention attention(mesh, make_token_layout(c.layout), c.strategy);
      for (int step = 0; step < 3; ++step) {
        AttentionSlot slot;
        const auto result = run_sharded(c, inputs, mesh, attention, slot);
        const auto& pairs = result.statistics.pairs;
        work[step][world.rank()] = std::accumulate(pairs.begin(), pairs.end(), int64_t{0});
      }
    });
    EXPECT_EQ(work[0][0] + work[0][1], work[1][0] + work[1][1]);
    EXPECT_EQ(work[1], work[2]) << c.name();
    EXPECT_LT(std::ranges::max(work[1]), 0.95 * std::ranges::max(work[0])) << c.name();
  }
}

// A recomputation has the order of its forward, and its costs are not gathered twice; nor are those
// of a layer that has made another call since.
TEST(HeadBalance, ARecomputationHasTheOrderOfItsForward) {
  for (AttentionCase c : uneven_cases()) {
    c.mesh = {1, 1, 2};
    const AttentionTensors first = step_inputs(c, 0), second = step_inputs(c, 1);
    comm::testing::run_ranks(2, [&](comm::Communicator& world) {
      const Mesh mesh(world.split(0, world.rank(), "world"), c.mesh);
      SequenceAttention attention(mesh, make_token_layout(c.layout), c.strategy);
      const int64_t before = mesh.sequence().recorder().next_sequence();
      AttentionSlot slot;
      run_sharded(c, first, mesh, attention, slot);
      slot.clear();
      const AttentionResult once = run_sharded(c, second, mesh, attention, slot);
      EXPECT_FALSE(once.selection.head_order.empty());
      AttentionSlot other;
      const AttentionResult third = run_sharded(c, second, mesh, attention, other);
      EXPECT_NE(third.selection.head_order, once.selection.head_order);
      const AttentionResult again = run_sharded(c, second, mesh, attention, slot);
      EXPECT_TRUE(bitwise_equal(once, again)) << c.name();
      EXPECT_EQ(again.selection.head_order, once.selection.head_order);
      EXPECT_EQ(mesh.sequence().recorder().next_sequence() - before, 3);
    });
  }
}

TEST(HeadBalance, NothingIsUnderWayOnceSettled) {
  AttentionCase c = uneven_cases().front();
  c.mesh = {1, 2, 2};
  const AttentionTensors inputs = step_inputs(c, 0);
  comm::testing::run_ranks(4, [&](comm::Communicator& world) {
    const Mesh mesh(world.split(0, world.rank(), "world"), c.mesh);
    const int64_t before = mesh.sequence().recorder().next_sequence();
    SequenceAttention attention(mesh, make_token_layout(c.layout), c.strategy);
    AttentionSlot slot;
    run_sharded(c, inputs, mesh, attention, slot);
    attention.settle();
    const auto records = mesh.sequence().recorder().since(before);
    ASSERT_EQ(records.size(), 1u);
    EXPECT_EQ(records[0].state, comm::OpState::kCompleted);
    EXPECT_EQ(records[0].bytes_sent, 3 * 4 * 8);  // to three ranks, costs of four heads
  });
}

TEST(HeadBalance, NothingIsGatheredWhereItCannotHelp) {
  for (AttentionCase c : method_cases()) {
    const bool uneven = c.spec.method == MethodKind::kBsa || c.spec.method == MethodKind::kPsa ||
                        c.spec.method == MethodKind::kAsa;
    EXPECT_EQ(balances_heads(c.strategy, {1, 2, 3}, c.spec, 6), uneven) << c.name();
    EXPECT_FALSE(balances_heads(c.strategy, {1, 2, 6}, c.spec, 6));  // a head each
    EXPECT_FALSE(balances_heads(c.strategy, {1, 6, 1}, c.spec, 6));
    c.spec.budget.max_coverage = {Decimal::parse("0.5")};
    c.spec.budget.head_group = 2;
    EXPECT_FALSE(balances_heads(c.strategy, {1, 1, 3}, c.spec, 6));  // a group each
    EXPECT_EQ(balances_heads(c.strategy, {1, 1, 3}, c.spec, 12), uneven);
    c.strategy.balance_heads = false;
    EXPECT_FALSE(balances_heads(c.strategy, {1, 1, 3}, c.spec, 12));
  }
}

// Counted from the choice: a pooled row counts once, a pruned query not at all.
TEST(ExecutedPairs, AreTheRowsThatMeet) {
  for (const AttentionCase& c : method_cases()) {
    const AttentionResult result = run_alone(c, make_inputs(c));
    const MethodChoice choice = choice_of(c, result.selection);
    const TokenLayout layout = make_token_layout(c.layout);
    const at::Tensor listed = choice.selected.index_select(
        3, at::tensor(choice.keys.column, at::kLong));  // [B, H, N, key rows]
    ASSERT_EQ(std::ssize(result.statistics.pairs), c.heads);
    for (int64_t h = 0; h < c.heads; ++h) {
      int64_t pairs = 0;
      for (int64_t b = 0; b < c.batch; ++b) {
        for (int64_t i = 0; i < layout.blocks(); ++i) {
          int64_t queries = 0;
          for (int64_t t = layout.block_offsets[i]; t < layout.block_offsets[i + 1]; ++t) {
            queries += !choice.source.defined() || choice.source[b][h][t].item<int64_t>() == t;
          }
          pairs += queries * listed[b][h][i].sum().item<int64_t>();
        }
      }
      EXPECT_EQ(result.statistics.pairs[h], pairs) << c.name() << " head " << h;
    }
  }
}

}  // namespace
}  // namespace sprocket::parallel::testing

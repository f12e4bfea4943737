// Plans on random grids, shards and selections: their messages are carried out with tagged rows, so
// that what arrives, how often and in which order is read from the data itself.
#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "base/philox.h"
#include "kernels/pyramid.h"
#include "parallel/attention/selected_plan.h"
#include "parallel/traffic.h"

namespace sprocket::parallel {
namespace {

constexpr int kProblems = 3000;
constexpr int kMovements = 200;
constexpr int64_t kNothing = -1;

class Draw {
 public:
  explicit Draw(uint64_t number) : stream_(31, 0, number, RandomPurpose::kTest) {}
  int range(int least, int most) {
    return least +
           static_cast<int>(stream_.below(next_++, static_cast<uint64_t>(most - least + 1)));
  }
  bool chance(double share) {
    return static_cast<double>(stream_.below(next_++, 1 << 20)) < share * (1 << 20);
  }

 private:
  RandomStream stream_;
  uint64_t next_ = 0;
};

using Buffers = std::vector<std::vector<int64_t>>;  // by rank

int64_t count_for(const std::vector<comm::Segment>& segments, int peer) {
  int64_t count = 0;
  for (const comm::Segment& segment : segments) {
    if (segment.peer == peer) count += segment.count;
  }
  return count;
}

// One rank's segments of one direction: inside the buffer, one at most for a peer, and as long as
// the other side's.
bool is_matched(const std::vector<ExchangePlan>& plans, int rank, bool sends, int64_t size) {
  const auto side = [&](int of, bool outgoing) {
    return outgoing ? plans[of].send : plans[of].receive;
  };
  bool matched = true;
  for (const comm::Segment& segment : side(rank, sends)) {
    matched &= segment.offset >= 0 && segment.offset + segment.count <= size &&
               count_for(side(rank, sends), segment.peer) == segment.count &&
               count_for(side(segment.peer, !sends), rank) == segment.count;
  }
  return matched;
}

// Carries all ranks' plans out.
Buffers deliver(const std::vector<ExchangePlan>& plans, const Buffers& sent) {
  Buffers received;
  for (int rank = 0; rank < std::ssize(plans); ++rank) {
    received.emplace_back(plans[rank].receive_count, kNothing);
    EXPECT_TRUE(is_matched(plans, rank, true, std::ssize(sent[rank]))) << "sent by " << rank;
    EXPECT_TRUE(is_matched(plans, rank, false, plans[rank].receive_count)) << "sent to " << rank;
  }
  if (::testing::Test::HasFailure()) return received;
  for (int to = 0; to < std::ssize(plans); ++to) {
    for (const comm::Segment& target : plans[to].receive) {
      for (const comm::Segment& source : plans[target.peer].send) {
        if (source.peer != to) continue;
        std::copy_n(sent[target.peer].begin() + source.offset, source.count,
                    received[to].begin() + target.offset);
      }
    }
  }
  return received;
}

std::vector<ExchangePlan> transposed(const std::vector<ExchangePlan>& plans) {
  std::vector<ExchangePlan> back;
  for (const ExchangePlan& plan : plans) {
    back.push_back(transpose(plan));
    EXPECT_EQ(transpose(back.back()), plan);
  }
  return back;
}

enum class Pattern { kNone, kAll, kOneOwner, kClustered, kUniform };

// What a query block of the whole sequence may list.
struct Selector {
  Pattern pattern;
  int first = 0, last = 0;  // kOneOwner: its blocks
  int radius = 0;           // kClustered, in blocks of the order
  double share = 0;         // kUniform

  bool takes(int query, int block, Draw& draw) const {
    switch (pattern) {
      case Pattern::kNone:
        return false;
      case Pattern::kAll:
        return true;
      case Pattern::kOneOwner:
        return block >= first && block < last;
      case Pattern::kClustered:
        return std::abs(query - block) <= radius;
      case Pattern::kUniform:
        return draw.chance(share);
    }
    return false;
  }
};

struct Problem {
  TokenLayout layout;
  ShardPlan shards;
  AttentionSpec spec;  // dense, or PSA, whose tables list segments of the pyramid
  int64_t batch = 1, heads = 1, head_dim = 1;
  std::vector<OuterShards> keys;              // by rank
  std::vector<kernels::SegmentTable> tables;  // by rank
  std::string name;

  int ranks() const { return shards.mesh.outer; }
  int64_t batch_heads() const { return batch * heads; }
};

TokenLayoutSpec draw_layout(Draw& draw, int ranks) {
  TokenLayoutSpec spec;
  spec.grid = {draw.range(1, 5), draw.range(1, 7), draw.range(1, 7)};
  spec.cube = {draw.range(1, 3), draw.range(1, 3), draw.range(1, 4)};
  spec.order = static_cast<BlockOrder>(draw.range(0, 3));
  spec.block_tokens = draw.range(1, 20);
  spec.domains = draw.chance(0.7) ? 1 : ranks * draw.range(1, 2);
  for (int segments = draw.range(0, 2); segments > 0; --segments) {
    spec.prefix.push_back(draw.range(0, 25));
  }
  spec.prefix_block_tokens = draw.range(4, 16);
  return spec;
}

// As make_shard_plan cuts, or anywhere: whatever balances work may cut so.
ShardPlan draw_shards(Draw& draw, const TokenLayout& layout, int ranks) {
  ShardPlan plan = make_shard_plan(layout, {1, ranks, 1});
  if (layout.spec.domains > 1 || draw.chance(0.5)) return plan;
  for (int r = 1; r < ranks; ++r) plan.outer_blocks[r] = draw.range(0, layout.blocks());
  std::sort(plan.outer_blocks.begin(), plan.outer_blocks.end());
  for (int r = 0; r <= ranks; ++r) {
    plan.outer_tokens[r] = plan.rank_tokens[r] = layout.block_offsets[plan.outer_blocks[r]];
  }
  return plan;
}

Selector draw_selector(Draw& draw, const ShardPlan& shards) {
  Selector selector{static_cast<Pattern>(draw.range(0, 4))};
  const int owner = draw.range(0, shards.mesh.outer - 1);
  selector.first = shards.outer_blocks[owner];
  selector.last = shards.outer_blocks[owner + 1];
  selector.radius = draw.range(0, 3);
  selector.share = 0.02 * draw.range(1, 45);
  return selector;
}

kernels::SegmentTable draw_table(Draw& draw, const Problem& p, const Selector& selector, int rank) {
  const auto pyramid = kernels::make_pyramid_layout(p.layout.block_offsets, p.spec.widths());
  kernels::SegmentTable table;
  table.batch = static_cast<int>(p.batch);
  table.heads = static_cast<int>(p.heads);
  table.query_blocks = p.shards.outer_blocks[rank + 1] - p.shards.outer_blocks[rank];
  table.kv_blocks = pyramid.segments();
  table.row_offsets.push_back(0);
  for (int64_t row = 0; row < table.rows(); ++row) {
    const int query = p.shards.outer_blocks[rank] + static_cast<int>(row % table.query_blocks);
    for (int block = 0; block < p.layout.blocks(); ++block) {
      if (!selector.takes(query, block, draw)) continue;
      const auto segments = pyramid.segments_of(block, draw.range(1, pyramid.levels()));
      for (int i = 0; i < segments.count; ++i) table.kv_block.push_back(segments.first + i);
    }
    table.row_offsets.push_back(std::ssize(table.kv_block));
  }
  return table;
}

Problem draw_problem(uint64_t number) {
  Draw draw(number);
  Problem p;
  const int ranks = draw.range(1, 8);
  p.layout = make_token_layout(draw_layout(draw, ranks));
  p.shards = draw_shards(draw, p.layout, ranks);
  p.spec.method = draw.chance(0.3) ? MethodKind::kPsa : MethodKind::kDense;
  p.batch = draw.range(1, 2);
  p.heads = draw.range(1, 3);
  p.head_dim = draw.range(1, 2);
  const Selector selector = draw_selector(draw, p.shards);
  for (int rank = 0; rank < ranks; ++rank) {
    p.keys.push_back(key_segments(p.layout, p.shards, rank, p.spec));
    p.tables.push_back(draw_table(draw, p, selector, rank));
  }
  const TokenLayoutSpec& spec = p.layout.spec;
  p.name = fmt::format(
      "problem {}: grid {}x{}x{} cube {}x{}x{} order {} run {} domains {} prefix {} by {}, blocks "
      "{}, B {} H {} D {}, {} levels, pattern {}",
      number, spec.grid.t, spec.grid.h, spec.grid.w, spec.cube.t, spec.cube.h, spec.cube.w,
      static_cast<int>(spec.order), spec.block_tokens, spec.domains, spec.prefix,
      spec.prefix_block_tokens, p.shards.outer_blocks, p.batch, p.heads, p.head_dim,
      p.spec.widths().size(), static_cast<int>(selector.pattern));
  return p;
}

// One element of K or V of the whole sequence, which no other has.
int64_t tag(const Problem& p, int64_t batch_head, int64_t row, bool value, int64_t d) {
  const int64_t rows = p.keys.front().block_offsets.back();
  return ((batch_head * rows + row) * 2 + value) * p.head_dim + d;
}

// The elements of some (batch x head, segment) pairs in the order of a message, K or V of them.
template <class Visit>
void for_each_element(const Problem& p, const std::vector<SelectedEntry>& entries, bool value,
                      Visit&& visit) {
  for (const SelectedEntry& entry : entries) {
    const int64_t first = p.keys.front().block_offsets[entry.block];
    for (int64_t row = 0; row < entry.rows; ++row) {
      for (int64_t d = 0; d < p.head_dim; ++d) {
        visit((entry.first_row + row) * p.head_dim + d,
              tag(p, entry.batch_head, first + row, value, d));
      }
    }
  }
}

// What a rank packs for all peers, as the strategy does it.
std::vector<int64_t> pack(const Problem& p, const SelectedPlan& plan) {
  std::vector<int64_t> buffer(plan.exchange.send_count, kNothing);
  for (int peer = 0; peer < p.ranks(); ++peer) {
    for (const bool value : {false, true}) {
      const int64_t begin =
          plan.exchange.send[peer].offset + (value ? plan.send_rows[peer] * p.head_dim : 0);
      for_each_element(p, plan.send[peer], value,
                       [&](int64_t at, int64_t element) { buffer.at(begin + at) = element; });
    }
  }
  return buffer;
}

// Own, or one that every rank has.
bool is_here(const Problem& p, int rank, int segment) {
  const std::vector<int32_t>& first = p.keys[rank].blocks;
  return segment < first[0] || (segment >= first[rank] && segment < first[rank + 1]);
}

// (batch x head, segment) pairs that a rank's table lists, ascending; straight from the table.
std::vector<std::pair<int64_t, int>> listed_pairs(const Problem& p, int rank) {
  const kernels::SegmentTable& table = p.tables[rank];
  std::vector<std::pair<int64_t, int>> pairs;
  for (int64_t row = 0; row < table.rows(); ++row) {
    for (int64_t i = table.row_offsets[row]; i < table.row_offsets[row + 1]; ++i) {
      pairs.emplace_back(row / table.query_blocks, table.kv_block[i]);
    }
  }
  std::sort(pairs.begin(), pairs.end());
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  return pairs;
}

// Every element that a rank needs of others, ascending.
std::vector<int64_t> needed_elements(const Problem& p, int rank) {
  std::vector<int64_t> elements;
  for (const auto& [batch_head, segment] : listed_pairs(p, rank)) {
    if (is_here(p, rank, segment)) continue;
    const auto& offsets = p.keys[rank].block_offsets;
    for (int64_t row = offsets[segment]; row < offsets[segment + 1]; ++row) {
      for (const bool value : {false, true}) {
        for (int64_t d = 0; d < p.head_dim; ++d) {
          elements.push_back(tag(p, batch_head, row, value, d));
        }
      }
    }
  }
  std::sort(elements.begin(), elements.end());
  return elements;
}

std::vector<SelectedPlan> plans_of(const Problem& p) {
  std::vector<NeedBitmap> needs;
  for (const auto& table : p.tables) needs.push_back(needs_of(table));
  std::vector<SelectedPlan> plans;
  for (int rank = 0; rank < p.ranks(); ++rank) {
    plans.push_back(
        plan_selected_exchange(p.keys[rank], needs, {0, needs[rank].batch_heads}, p.head_dim));
  }
  return plans;
}

void expect_what_was_needed(const Problem& p, const std::vector<SelectedPlan>& plans,
                            const Buffers& received) {
  for (int rank = 0; rank < p.ranks(); ++rank) {
    std::vector<int64_t> arrived = received[rank];
    std::sort(arrived.begin(), arrived.end());
    EXPECT_EQ(arrived, needed_elements(p, rank)) << "rank " << rank;
    EXPECT_TRUE(plans[rank].send[rank].empty());
    EXPECT_TRUE(plans[rank].receive[rank].empty());
    for (int peer = 0; peer < p.ranks(); ++peer) {
      EXPECT_EQ(plans[peer].send[rank], plans[rank].receive[peer]);
      for (const bool value : {false, true}) {
        const int64_t begin = plans[rank].exchange.receive[peer].offset +
                              (value ? plans[rank].receive_rows[peer] * p.head_dim : 0);
        for_each_element(p, plans[rank].receive[peer], value, [&](int64_t at, int64_t element) {
          EXPECT_EQ(received[rank].at(begin + at), element) << "rank " << rank;
        });
      }
    }
  }
}

void expect_counts_of_the_formulas(const Problem& p, int rank, const SelectedPlan& plan) {
  const AttentionShape shape{p.batch, p.heads, p.head_dim, DType::kF32, p.spec};
  const StrategySpec strategy{OuterStrategyKind::kSelected, false, 1};
  const PlanTraffic out = traffic_of(plan.exchange, rank),
                    back = traffic_of(transpose(plan.exchange), rank);
  int rows = 0;
  for (const TrafficRow& row :
       attention_traffic(p.layout, p.shards, rank, shape, strategy, rows_of({&plan, 1}))) {
    const bool gradients = row.what == "gradients of selected k, v";
    if (!gradients && row.what != "selected k, v") continue;
    ++rows;
    const PlanTraffic& planned = gradients ? back : out;
    EXPECT_EQ(row.bytes, planned.elements * static_cast<int64_t>(sizeof(float))) << row.what;
    EXPECT_EQ(row.messages, planned.messages) << row.what;
  }
  EXPECT_EQ(rows, p.ranks() == 1 ? 0 : 3);  // forward, fetched again, gradients
}

void expect_coverage(const Problem& p, int rank) {
  const OuterShards& keys = p.keys[rank];
  const int64_t own = keys.blocks[rank + 1] - keys.blocks[rank];
  const int64_t all = keys.sharded_blocks();
  const auto pairs = listed_pairs(p, rank);
  const auto remote = std::count_if(
      pairs.begin(), pairs.end(), [&](const auto& pair) { return !is_here(p, rank, pair.second); });
  const double expected =
      all == own ? 0
                 : static_cast<double>(remote) / static_cast<double>(p.batch_heads() * (all - own));
  const auto shares = head_coverage(keys, needs_of(p.tables[rank]), p.tables[rank].heads);
  EXPECT_DOUBLE_EQ(kernels::total_of(shares).value(), expected) << "rank " << rank;
}

// The rows that travel, of those that might: every rank comes to the same decision.
void expect_one_decision(const Problem& p, const std::vector<SelectedPlan>& plans) {
  std::vector<NeedBitmap> needs;
  int64_t moved = 0, all = 0;
  for (int rank = 0; rank < p.ranks(); ++rank) {
    needs.push_back(needs_of(p.tables[rank]));
    const auto& received = plans[rank].receive_rows;
    moved += std::accumulate(received.begin(), received.end(), int64_t{0});
    const OuterShards& keys = p.keys[rank];
    const int64_t sharded = keys.block_offsets.back() - keys.first_token(0);
    all += p.batch_heads() * (sharded - keys.tokens(rank));
  }
  for (const double share : {0.0, 0.25, 0.5, 0.95, 1.0}) {
    for (const OuterShards& keys : p.keys) {
      EXPECT_EQ(gathers_everything(keys, needs, share),
                static_cast<double>(moved) > share * static_cast<double>(all));
    }
  }
}

TEST(SelectedPlanProperty, EveryNeededBlockArrivesOnceAndNothingElse) {
  int64_t moved = 0;
  for (int number = 0; number < kProblems; ++number) {
    const Problem p = draw_problem(number);
    SCOPED_TRACE(p.name);
    const std::vector<SelectedPlan> plans = plans_of(p);
    std::vector<ExchangePlan> exchanges;
    Buffers sent;
    for (const SelectedPlan& plan : plans) {
      exchanges.push_back(plan.exchange);
      sent.push_back(pack(p, plan));
      moved += plan.exchange.send_count;
    }
    const Buffers received = deliver(exchanges, sent);
    expect_what_was_needed(p, plans, received);
    // The way back: every element returns to the place that it was sent from.
    EXPECT_EQ(deliver(transposed(exchanges), received), sent);
    expect_one_decision(p, plans);
    for (int rank = 0; rank < p.ranks(); ++rank) {
      expect_counts_of_the_formulas(p, rank, plans[rank]);
      expect_coverage(p, rank);
    }
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_GT(moved, 100'000);  // the problems are not empty
}

// Tags of what a rank holds: rank and position.
std::vector<int64_t> held(int rank, int64_t count) {
  std::vector<int64_t> values(count);
  std::iota(values.begin(), values.end(), rank * int64_t{1000});
  return values;
}

struct Movement {
  std::vector<int64_t> counts;  // by rank, some of them 0
  int64_t part = 1;

  explicit Movement(uint64_t number) {
    Draw draw(kProblems + number);
    for (int ranks = draw.range(1, 8); ranks > 0; --ranks) {
      counts.push_back(draw.chance(0.25) ? 0 : draw.range(1, 9));
    }
    part = draw.range(1, 4);
  }
  int ranks() const { return static_cast<int>(counts.size()); }
  template <class Make>
  std::vector<ExchangePlan> plans(Make&& make) const {
    std::vector<ExchangePlan> result;
    for (int rank = 0; rank < ranks(); ++rank) result.push_back(make(rank));
    return result;
  }
};

TEST(ExchangePlanProperty, AGatherBringsTheOthersElementsInRankOrder) {
  for (int number = 0; number < kMovements; ++number) {
    const Movement m(number);
    SCOPED_TRACE(fmt::format("movement {}: {}", number, m.counts));
    const auto plans = m.plans([&](int rank) { return gather_plan(m.counts, rank); });
    Buffers sent, others(m.ranks());
    for (int owner = 0; owner < m.ranks(); ++owner) {
      sent.push_back(held(owner, m.counts[owner]));
      for (int rank = 0; rank < m.ranks(); ++rank) {
        if (rank == owner) continue;
        others[rank].insert(others[rank].end(), sent.back().begin(), sent.back().end());
      }
    }
    EXPECT_EQ(deliver(plans, sent), others);
    transposed(plans);
  }
}

TEST(ExchangePlanProperty, ARingBringsEveryShardPastEveryRankAndHomeAgain) {
  for (int number = 0; number < kMovements; ++number) {
    const Movement m(number);
    SCOPED_TRACE(fmt::format("movement {}: {}", number, m.counts));
    Buffers start, state;
    for (int rank = 0; rank < m.ranks(); ++rank) start.push_back(held(rank, m.counts[rank]));
    state = start;
    for (int step = 0; step < m.ranks(); ++step) {
      for (int rank = 0; rank < m.ranks(); ++rank) {
        EXPECT_EQ(state[rank], start[(rank - step + m.ranks()) % m.ranks()]) << "step " << step;
      }
      const auto plans = m.plans([&](int rank) { return ring_step_plan(m.counts, rank, step); });
      const Buffers next = deliver(plans, state);
      EXPECT_EQ(deliver(transposed(plans), next), state);
      state = next;
    }
    EXPECT_EQ(state, start);
  }
}

TEST(ExchangePlanProperty, UlyssesGivesEveryMemberItsPartOfAllRows) {
  for (int number = 0; number < kMovements; ++number) {
    const Movement m(number);
    SCOPED_TRACE(fmt::format("movement {}: {} of {}", number, m.counts, m.part));
    const auto plans = m.plans([&](int rank) { return ulysses_plan(m.counts, m.part, rank); });
    const auto element = [&](int owner, int64_t row, int part, int64_t i) {
      return ((owner * int64_t{100} + row) * m.ranks() + part) * m.part + i;
    };
    Buffers sent, expected;
    for (int rank = 0; rank < m.ranks(); ++rank) {
      std::vector<int64_t>& out = sent.emplace_back();
      std::vector<int64_t>& in = expected.emplace_back();
      for (int peer = 0; peer < m.ranks(); ++peer) {
        for (int64_t row = 0; row < m.counts[rank]; ++row) {
          for (int64_t i = 0; i < m.part; ++i) out.push_back(element(rank, row, peer, i));
        }
        for (int64_t row = 0; row < m.counts[peer]; ++row) {
          for (int64_t i = 0; i < m.part; ++i) in.push_back(element(peer, row, rank, i));
        }
      }
    }
    const Buffers received = deliver(plans, sent);
    EXPECT_EQ(received, expected);
    EXPECT_EQ(deliver(transposed(plans), received), sent);
  }
}

}  // namespace
}  // namespace sprocket::parallel

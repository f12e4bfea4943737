#include "runtime/plan/coverage_model.h"

#include <algorithm>

#include "base/error.h"

namespace sprocket::runtime {
namespace {

using parallel::BlockOrder;

// Tokens of every block of `layout` that every rank holds, [ranks][blocks], under another order.
std::vector<std::vector<int64_t>> held_tokens(const parallel::TokenLayout& layout, BlockOrder order,
                                              int ranks) {
  parallel::TokenLayoutSpec spec = layout.spec;
  spec.order = order;
  spec.domains = 1;
  if (order == BlockOrder::kHilbert && layout.spec.order != BlockOrder::kHilbert) {
    spec.block_tokens = static_cast<int>(layout.block_capacity());
  }
  const parallel::TokenLayout other = parallel::make_token_layout(spec);
  const parallel::ShardPlan shards = parallel::make_shard_plan(other, {1, ranks, 1});
  std::vector<int> rank_of(layout.tokens());
  for (int rank = 0; rank < ranks; ++rank) {
    for (int64_t i = shards.outer_tokens[rank]; i < shards.outer_tokens[rank + 1]; ++i) {
      rank_of[other.raster_index[i]] = rank;
    }
  }
  std::vector<std::vector<int64_t>> held(ranks, std::vector<int64_t>(layout.blocks()));
  for (int block = 0; block < layout.blocks(); ++block) {
    for (int64_t i = layout.block_offsets[block]; i < layout.block_offsets[block + 1]; ++i) {
      ++held[rank_of[layout.raster_index[i]]][block];
    }
  }
  return held;
}

// A (head, block) pair that a rank may import.
struct Import {
  double uses = 0;  // query rows of the rank that select it
  double rows = 0;  // of it that other ranks hold
};

OrderCoverage measure(const parallel::TokenLayout& layout, const kernels::SegmentTable& table,
                      BlockOrder order, int ranks, const std::vector<double>& budgets) {
  const std::vector<std::vector<int64_t>> held = held_tokens(layout, order, ranks);
  OrderCoverage result{order, ranks, false, 0, {}};
  double needed = 0, remote = 0, own_pairs = 0, remote_pairs = 0;
  std::vector<double> kept(budgets.size());
  for (int rank = 0; rank < ranks; ++rank) {
    std::vector<Import> imports;
    double held_elsewhere = 0;
    for (int head = 0; head < table.heads; ++head) {
      std::vector<double> uses(table.kv_blocks);
      for (int query = 0; query < table.query_blocks; ++query) {
        if (held[rank][query] == 0) continue;
        for (const int32_t key : table.row(0, head, query)) {
          uses[key] += static_cast<double>(held[rank][query]);
        }
      }
      for (int key = 0; key < table.kv_blocks; ++key) {
        const int64_t size = layout.block_offsets[key + 1] - layout.block_offsets[key];
        const int64_t own = held[rank][key];
        if (own != 0 && own != size) result.cuts_blocks = true;
        held_elsewhere += static_cast<double>(size - own);
        own_pairs += uses[key] * static_cast<double>(own);
        if (uses[key] > 0 && own < size) {
          imports.push_back({uses[key], static_cast<double>(size - own)});
        }
      }
    }
    remote += held_elsewhere;
    for (const Import& import : imports) {
      needed += import.rows;
      remote_pairs += import.uses * import.rows;
    }
    std::stable_sort(imports.begin(), imports.end(),
                     [](const Import& a, const Import& b) { return a.uses > b.uses; });
    for (size_t i = 0; i < budgets.size(); ++i) {
      double left = budgets[i] * held_elsewhere;
      for (const Import& import : imports) {
        if (import.rows > left) break;
        left -= import.rows;
        kept[i] += import.uses * import.rows;
      }
    }
  }
  result.coverage = remote == 0 ? 0 : needed / remote;
  const double all = own_pairs + remote_pairs;
  for (const double pairs : kept) {
    result.kept.push_back(all == 0 ? 1 : (own_pairs + pairs) / all);
  }
  return result;
}

}  // namespace

std::vector<OrderCoverage> coverage_by_order(const parallel::TokenLayout& layout,
                                             const kernels::SegmentTable& table,
                                             const std::vector<int>& ranks,
                                             const std::vector<double>& budgets) {
  SPROCKET_CHECK_EQ(table.kv_blocks, layout.blocks());
  SPROCKET_CHECK_EQ(layout.prefix_blocks(), 0);
  std::vector<OrderCoverage> all;
  for (const BlockOrder order :
       {BlockOrder::kRaster, BlockOrder::kKd, BlockOrder::kCubeHilbert, BlockOrder::kHilbert}) {
    for (const int count : ranks) all.push_back(measure(layout, table, order, count, budgets));
  }
  return all;
}

std::string name_of(parallel::BlockOrder order) {
  switch (order) {
    case BlockOrder::kRaster:
      return "RASTER";
    case BlockOrder::kKd:
      return "KD";
    case BlockOrder::kHilbert:
      return "HILBERT";
    case BlockOrder::kCubeHilbert:
      return "CUBE_HILBERT";
  }
  throw InternalError("an order has no name");
}

}  // namespace sprocket::runtime

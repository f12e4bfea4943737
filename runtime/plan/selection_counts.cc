#include "runtime/plan/selection_counts.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace sprocket::runtime {

int64_t SelectionCounts::rows(int rank, int owner, int first, int last) const {
  int64_t sum = 0;
  for (int head = first; head < last; ++head) sum += rows_[at(rank, owner, head)];
  return sum;
}

double SelectionCounts::pairs(int rank, int owner, int first, int last) const {
  double sum = 0;
  for (int head = first; head < last; ++head) sum += pairs_[at(rank, owner, head)];
  return sum;
}

double SelectionCounts::coverage(const SelectionShards& shards) const {
  double needed = 0, all = 0;
  for (int rank = 0; rank < ranks_; ++rank) {
    for (int owner = 0; owner < ranks_; ++owner) {
      if (owner == rank) continue;
      needed += static_cast<double>(rows(rank, owner, 0, heads_));
      all += static_cast<double>(shards.key_rows(owner)) * heads_;
    }
  }
  return all == 0 ? 0 : needed / all;
}

double SelectionCounts::density(const SelectionShards& shards) const {
  double selected = 0;
  for (int rank = 0; rank < ranks_; ++rank) {
    for (int owner = 0; owner < ranks_; ++owner) selected += pairs(rank, owner, 0, heads_);
  }
  const double all = static_cast<double>(shards.query_offsets.back()) *
                     static_cast<double>(shards.segment_offsets.back()) * heads_;
  return all == 0 ? 0 : selected / all;
}

SelectionCounts count_selection(const kernels::SegmentTable& whole, const SelectionShards& shards) {
  const int ranks = shards.ranks();
  const auto segments = static_cast<int32_t>(shards.segment_offsets.size()) - 1;
  SPROCKET_CHECK_EQ(whole.kv_blocks, segments);
  SPROCKET_CHECK_EQ(whole.query_blocks, static_cast<int>(shards.query_offsets.size()) - 1);
  std::vector<int> owner_of(segments);
  for (int rank = 0; rank < ranks; ++rank) {
    std::fill(owner_of.begin() + shards.segments[rank],
              owner_of.begin() + shards.segments[rank + 1], rank);
  }
  SelectionCounts counts(ranks, whole.heads);
  std::vector<int> needed_by(segments, -1);  // the last (rank, head) that was seen to need it
  for (int rank = 0; rank < ranks; ++rank) {
    for (int head = 0; head < whole.heads; ++head) {
      const int mark = rank * whole.heads + head;
      for (int block = shards.query_blocks[rank]; block < shards.query_blocks[rank + 1]; ++block) {
        const auto queries =
            static_cast<double>(shards.query_offsets[block + 1] - shards.query_offsets[block]);
        const bool moves = block >= shards.prefix_blocks;
        for (const int32_t id : whole.row(0, head, block)) {
          const int64_t rows = shards.segment_offsets[id + 1] - shards.segment_offsets[id];
          const bool everywhere = id < shards.segments.front();
          const int owner = everywhere && moves ? rank : owner_of[id];
          counts.pairs_of(moves ? rank : owner, owner, head) += queries * static_cast<double>(rows);
          if (everywhere || !moves || needed_by[id] == mark) continue;
          needed_by[id] = mark;
          counts.rows_of(rank, owner_of[id], head) += rows;
        }
      }
    }
  }
  return counts;
}

SelectionCounts count_dense(int heads, const SelectionShards& shards) {
  return count_figures(1, 1, heads, shards);
}

SelectionCounts count_figures(double density, double coverage, int heads,
                              const SelectionShards& shards) {
  const int ranks = shards.ranks();
  SelectionCounts counts(ranks, heads);
  const auto all_keys = static_cast<double>(shards.segment_offsets.back());
  for (int rank = 0; rank < ranks; ++rank) {
    const double selected = density * static_cast<double>(shards.query_rows(rank)) * all_keys;
    int64_t reachable = shards.key_rows(rank);
    for (int owner = 0; owner < ranks; ++owner) {
      const int64_t held = shards.key_rows(owner);
      const int64_t needed =
          owner == rank ? held : std::llround(coverage * static_cast<double>(held));
      if (owner != rank) reachable += needed;
      for (int head = 0; head < heads; ++head) counts.rows_of(rank, owner, head) = needed;
    }
    for (int owner = 0; owner < ranks; ++owner) {
      const auto share = static_cast<double>(counts.rows(rank, owner, 0, 1)) /
                         static_cast<double>(std::max<int64_t>(reachable, 1));
      for (int head = 0; head < heads; ++head) {
        counts.pairs_of(rank, owner, head) = selected * share;
      }
    }
  }
  return counts;
}

}  // namespace sprocket::runtime

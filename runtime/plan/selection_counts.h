// What a selection means for an outer degree: how much every rank computes and needs of every
// other.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/segment_table.h"

namespace sprocket::runtime {

// Query blocks and key segments (parallel/attention/key_shards.h) over the outer ranks.
struct SelectionShards {
  std::vector<int64_t> query_offsets;    // [blocks + 1] rows
  std::vector<int32_t> query_blocks;     // [ranks + 1] first block of each rank
  std::vector<int64_t> segment_offsets;  // [segments + 1] rows
  // [ranks + 1] first segment of each rank; those before the first rank's are on every rank
  std::vector<int32_t> segments;
  // The first query blocks, of the prefix, are attended with where the keys are.
  int32_t prefix_blocks = 0;

  int ranks() const { return static_cast<int>(query_blocks.size()) - 1; }
  int64_t query_rows(int rank) const {
    return query_offsets[query_blocks[rank + 1]] - query_offsets[query_blocks[rank]];
  }
  int64_t key_rows(int rank) const {
    return segment_offsets[segments[rank + 1]] - segment_offsets[segments[rank]];
  }
};

// Of one sample, by (rank, owner of the keys, head).
class SelectionCounts {
 public:
  SelectionCounts(int ranks, int heads)
      : ranks_(ranks), heads_(heads), rows_(cells()), pairs_(cells()) {}

  int ranks() const { return ranks_; }
  int heads() const { return heads_; }
  // K rows of `owner` that some query of `rank` attends to; as a sum over heads [first, last).
  int64_t rows(int rank, int owner, int first, int last) const;
  // (query row, key row) pairs.
  double pairs(int rank, int owner, int first, int last) const;

  int64_t& rows_of(int rank, int owner, int head) { return rows_[at(rank, owner, head)]; }
  double& pairs_of(int rank, int owner, int head) { return pairs_[at(rank, owner, head)]; }

  // Needed rows of other ranks / all rows of other ranks, over ranks and heads; 0 for one rank.
  double coverage(const SelectionShards& shards) const;
  // Pairs / all pairs.
  double density(const SelectionShards& shards) const;

 private:
  size_t cells() const { return static_cast<size_t>(ranks_) * ranks_ * heads_; }
  size_t at(int rank, int owner, int head) const {
    return (static_cast<size_t>(rank) * ranks_ + owner) * heads_ + head;
  }
  int ranks_, heads_;
  std::vector<int64_t> rows_;
  std::vector<double> pairs_;
};

// Of sample 0 of a table over all query blocks and segments. Pairs count where they are computed:
// of prefix queries, at the owner of the keys, or on the first rank for keys that are everywhere.
SelectionCounts count_selection(const kernels::SegmentTable& whole, const SelectionShards& shards);

// Every query attends to every key.
SelectionCounts count_dense(int heads, const SelectionShards& shards);

// Of two figures: a share `density` of all pairs is selected, and a share `coverage` of the rows of
// other ranks is needed. The selected pairs are spread evenly over the own and the needed rows.
SelectionCounts count_figures(double density, double coverage, int heads,
                              const SelectionShards& shards);

}  // namespace sprocket::runtime

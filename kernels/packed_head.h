// The keys and values of one (batch, head), copied once into the layouts that the products read.
//
// Copying pays for itself: rows of a DiT's [B, L, H, D] layout lie kilobytes apart, at strides that
// often share the same cache sets, and every tile is read once for each query block that lists it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "kernels/aligned_buffer.h"
#include "kernels/segment_attention_heads.h"
#include "kernels/tile_ops.h"

namespace sprocket::kernels {

inline constexpr int kTileRows = 64;
inline constexpr double kLog2E = 1.44269504088896341;

constexpr int round_up(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// A piece of a KV block, at most kTileRows rows.
struct KeyTile {
  int rows;
  int64_t offset;  // in rows, of the packed copies; even
};

// Elements of T, as stored by the caller, to rows of `padded_dim`, zero-filled on the right and
// below up to `padded_rows`. Packed: float or BFloat16; T: Packed, or BFloat16 widened to float.
template <class T, class Packed>
void copy_rows(const T* from, int64_t stride, int rows, int dim, Packed* to, int padded_rows,
               int padded_dim);

// [rows][dim] to [rows/2][dim][2]; a missing last row reads as zeros.
void interleave_rows(const BFloat16* from, int rows, int dim, BFloat16* to);

// to[row, 0..dim) += from[row, 0..dim)
void add_rows(const float* from, int from_stride, int rows, int dim, float* to, int64_t to_stride);

// Where the KV tiles of one (batch, head) lie in its packed copies. Only blocks in use have any.
class TilePlan {
 public:
  void build(const SegmentTable& table, const KvBlockMap& map, int64_t batch_head);

  int64_t packed_rows() const { return packed_rows_; }
  std::span<const KeyTile> tiles(int block) const {
    return {tiles_.data() + first_tile_[block],
            static_cast<size_t>(first_tile_[block + 1] - first_tile_[block])};
  }

 private:
  std::vector<int32_t> first_tile_;
  std::vector<KeyTile> tiles_;
  int64_t packed_rows_ = 0;
};

// What forward and backward share: where the head's rows are, and the packed keys and values.
template <class T, class Packed>
class PackedHead {
 public:
  static constexpr bool kPairs = std::is_same_v<Packed, BFloat16>;

  explicit PackedHead(const SegmentAttentionProblem<T>& problem)
      : problem_(problem), dim_(round_up(problem.head_dim, 16)) {}

  const SegmentAttentionProblem<T>& problem() const { return problem_; }
  int dim() const { return dim_; }  // head_dim padded with zeros to a multiple of 16
  int64_t batch_head() const { return batch_head_; }
  int64_t batch() const { return batch_head_ / problem_.table->heads; }
  int64_t head() const { return batch_head_ % problem_.table->heads; }
  const TilePlan& plan() const { return plan_; }
  const KvBlock& block(int id) const { return problem_.map->at(batch_head_, id); }

  void begin(int64_t batch_head) {
    batch_head_ = batch_head;
    plan_.build(*problem_.table, *problem_.map, batch_head);
  }

  // Copies the rows of one block.
  void pack_rows(const HeadView<const T>& from, int id, Packed* rows) const;
  // Each tile of packed rows as [dim][tile rows rounded up to even]; may be done in place.
  void transpose_tiles(int id, const Packed* rows, Packed* transposed) const requires kPairs;

 private:
  SegmentAttentionProblem<T> problem_;
  int dim_;
  int64_t batch_head_ = 0;
  TilePlan plan_;
};

// One tile of queries: at most kMaxColumns rows of a query block.
struct QueryTile {
  int64_t first_row;
  int rows;
  int columns;  // rows rounded up to 16
};

template <class Visit>
void for_each_query_tile(std::span<const int64_t> query_offsets, int query_block, Visit visit) {
  for (int64_t row = query_offsets[query_block]; row < query_offsets[query_block + 1];
       row += kMaxColumns) {
    const int rows =
        static_cast<int>(std::min<int64_t>(kMaxColumns, query_offsets[query_block + 1] - row));
    visit(QueryTile{row, rows, round_up(rows, 16)});
  }
}

}  // namespace sprocket::kernels

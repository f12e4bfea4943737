// The keys and values of one (batch, head), copied once into the layouts that the products read.
//
// Copying pays for itself: rows of a DiT's [B, L, H, D] layout lie kilobytes apart, at strides that
// often share the same cache sets, and every tile is read once for each query block that lists it.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/segment_attention.h"
#include "kernels/segment_attention_plan.h"

namespace sprocket::kernels {

// Elements of T, as stored by the caller, to rows of `padded_dim`, zero-filled on the right and
// below up to `padded_rows`. Packed: float or BFloat16; T: Packed, or BFloat16 widened to float.
template <class T, class Packed>
void copy_rows(const T* from, int64_t stride, int rows, int dim, Packed* to, int padded_rows,
               int padded_dim);

// [rows][dim] to [rows/2][dim][2]; a missing last row reads as zeros.
void interleave_rows(const BFloat16* from, int rows, int dim, BFloat16* to);

// [rows][dim] to [dim][rows], rows even; `scratch` holds as many elements. May be done in place.
void transpose_pairs(const BFloat16* from, int rows, int dim, BFloat16* scratch, BFloat16* to);

// to[row, 0..dim) += from[row, 0..dim)
void add_rows(const float* from, int from_stride, int rows, int dim, float* to, int64_t to_stride);

// Keys and values of all key tiles of a plan: [tile][K then V][rows rounded up to even][dim], so
// that one prefetch covers both.
template <class Packed>
class PackedKeys {
 public:
  PackedKeys(int dim, const PlanSizes& sizes, WorkspaceArena& arena)
      : dim_(dim), data_(arena.take<Packed>(2 * sizes.packed_rows * dim)) {}

  Packed* keys(const KeyTile& tile) const { return data_ + 2 * tile.offset * dim_; }
  Packed* values(const KeyTile& tile) const {
    return keys(tile) + int64_t{round_up(tile.rows, 2)} * dim_;
  }

  // Copies the rows of one block.
  template <class T>
  void load(const SegmentAttentionProblem<T>& problem, const HeadPlan& plan, int id) const {
    if (plan.key_tiles(id).empty()) return;
    const KvBlock& block = plan.block(id);
    const KvBuffer<T>& buffer = problem.kv[block.buffer];
    int64_t row = block.first_row;
    for (const KeyTile& tile : plan.key_tiles(id)) {
      const int padded = round_up(tile.rows, 2);
      copy_rows(buffer.k.row(plan.batch(), row, plan.head()), buffer.k.row_stride, tile.rows,
                problem.head_dim, keys(tile), padded, dim_);
      copy_rows(buffer.v.row(plan.batch(), row, plan.head()), buffer.v.row_stride, tile.rows,
                problem.head_dim, values(tile), padded, dim_);
      row += tile.rows;
    }
  }

 private:
  int dim_;
  Packed* data_;
};

}  // namespace sprocket::kernels

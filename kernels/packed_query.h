// One tile of query-side rows (Q or dO), in the layouts that the products read.
#pragma once

#include <type_traits>

#include "kernels/packed_head.h"
#include "kernels/tile_products.h"

namespace sprocket::kernels {

template <class Packed>
class PackedQuery {
 public:
  PackedQuery() = default;
  // `along` only where asked for.
  PackedQuery(int dim, bool with_along, WorkspaceArena& arena)
      : dim_(dim), across_(arena.take<Packed>(int64_t{kMaxColumns} * dim)) {
    if (with_along) along_ = arena.take<Packed>(int64_t{kMaxColumns} * dim);
  }

  // `rows`: scratch for [kMaxColumns][dim] elements.
  template <class T>
  void pack(const T* from, int64_t stride, int head_dim, const QueryTile& tile, Packed* rows) {
    if (!kPairs && along_ != nullptr) rows = along_;
    copy_rows(from, stride, tile.rows, head_dim, rows, tile.columns, dim_);
    constexpr int kPerWord = 4 / sizeof(Packed);
    transpose_words(rows, tile.columns, dim_ / kPerWord, dim_ / kPerWord, across_, tile.columns);
    if constexpr (kPairs) {
      if (along_ != nullptr) interleave_rows(rows, tile.columns, dim_, along_);
    }
  }

  // Right operand whose rows are the head dimension: [dim][columns].
  const Packed* across() const { return across_; }
  // Right operand whose rows are the queries: [columns][dim].
  const Packed* along() const { return along_; }

 private:
  static constexpr bool kPairs = std::is_same_v<Packed, BFloat16>;
  int dim_ = 0;
  Packed* across_ = nullptr;
  Packed* along_ = nullptr;
};

}  // namespace sprocket::kernels

// One tile of query-side rows (Q or dO), in the layouts that the products read.
#pragma once

#include "kernels/packed_head.h"
#include "kernels/tile_products.h"

namespace sprocket::kernels {

template <class Packed>
class PackedQuery {
 public:
  explicit PackedQuery(int dim) : dim_(dim) {
    const size_t size = int64_t{kMaxColumns} * dim;
    rows_.reserve(size);
    across_.reserve(size);
    if constexpr (kPairs) along_.reserve(size);
  }

  // `along` is made only when asked for.
  template <class T>
  void pack(const T* from, int64_t stride, int head_dim, const QueryTile& tile, bool with_along) {
    copy_rows(from, stride, tile.rows, head_dim, rows_.data(), tile.columns, dim_);
    constexpr int kPerWord = 4 / sizeof(Packed);
    transpose_words(rows_.data(), tile.columns, dim_ / kPerWord, dim_ / kPerWord, across_.data(),
                    tile.columns);
    if constexpr (kPairs) {
      if (with_along) interleave_rows(rows_.data(), tile.columns, dim_, along_.data());
    }
  }

  // Right operand whose rows are the head dimension: [dim][columns].
  const Packed* across() const { return across_.data(); }
  // Right operand whose rows are the queries: [columns][dim].
  const Packed* along() const {
    if constexpr (kPairs) return along_.data();
    return rows_.data();
  }

 private:
  static constexpr bool kPairs = std::is_same_v<Packed, BFloat16>;
  int dim_;
  AlignedBuffer<Packed> rows_, across_, along_;
};

}  // namespace sprocket::kernels

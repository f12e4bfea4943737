// Exact top-k of block scores.
//
// Ties go to the smaller block id (+0 and -0 tie). A NaN score, of a model that has diverged,
// counts as the smallest one, so that every rank still derives the same table and the loss reports
// the NaN. Nothing here is differentiated.
#pragma once

#include <cstdint>
#include <type_traits>

#include "base/decimal.h"
#include "kernels/aligned_buffer.h"

namespace sprocket::kernels {

// k = clamp(ceil((1 - sparsity) * blocks), 1, blocks), in exact decimal arithmetic; 0 for no
// blocks.
int selected_count(const Decimal& sparsity, int blocks);

// Finds the largest scores of a row. One object serves one thread.
template <class A>
class RowSelector {
 public:
  // Writes the positions of the `count` largest of `size` scores, ascending; 0 <= count <= size.
  void select(const A* scores, int64_t size, int64_t count, int32_t* positions);

 private:
  AlignedBuffer<std::conditional_t<sizeof(A) == 4, int32_t, int64_t>> keys_;
};

}  // namespace sprocket::kernels

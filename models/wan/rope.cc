#include "models/wan/rope.h"

#include "base/error.h"

namespace sprocket::models {

RopeTables make_rope_tables(const parallel::TokenLayout& layout, int64_t first, int64_t count,
                            int head_dim, at::ScalarType dtype) {
  SPROCKET_CHECK(head_dim % 2 == 0 && head_dim >= 6, "found {}", head_dim);
  const parallel::Grid& grid = layout.spec.grid;
  const int third = head_dim / 6;
  return rope_tables(
      layout, first, count,
      {RotaryAxis{head_dim / 2 - 2 * third, whole_positions(grid.t)},
       RotaryAxis{third, whole_positions(grid.h)}, RotaryAxis{third, whole_positions(grid.w)}},
      dtype);
}

}  // namespace sprocket::models

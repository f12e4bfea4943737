#include "models/wan/rope.h"

#include <cmath>

#include <ATen/ops/empty.h>

#include "base/error.h"

namespace sprocket::models {
namespace {

constexpr double kTheta = 10000;

struct CosSin {
  double cos, sin;
};

// [positions, pairs] of one axis.
std::vector<CosSin> axis_table(int positions, int pairs) {
  std::vector<CosSin> table;
  table.reserve(static_cast<size_t>(positions) * pairs);
  for (int position = 0; position < positions; ++position) {
    for (int i = 0; i < pairs; ++i) {
      const double angle = position * std::pow(kTheta, -static_cast<double>(i) / pairs);
      table.push_back({std::cos(angle), std::sin(angle)});
    }
  }
  return table;
}

template <class A>
void fill(const parallel::TokenLayout& layout, int64_t first, int64_t count,
          const std::array<int, 3>& pairs, A* cos, A* sin) {
  const parallel::Grid& grid = layout.spec.grid;
  const std::array<std::vector<CosSin>, 3> tables{
      axis_table(grid.t, pairs[0]), axis_table(grid.h, pairs[1]), axis_table(grid.w, pairs[2])};
  for (int64_t token = first; token < first + count; ++token) {
    const auto position = layout.position(token);
    for (int axis = 0; axis < 3; ++axis) {
      const CosSin* row = tables[axis].data() + static_cast<int64_t>(position[axis]) * pairs[axis];
      for (int i = 0; i < pairs[axis]; ++i) {
        *cos++ = static_cast<A>(row[i].cos);
        *sin++ = static_cast<A>(row[i].sin);
      }
    }
  }
}

}  // namespace

RopeTables make_rope_tables(const parallel::TokenLayout& layout, int64_t first, int64_t count,
                            int head_dim, at::ScalarType dtype) {
  SPROCKET_CHECK(head_dim % 2 == 0 && head_dim >= 6, "found {}", head_dim);
  SPROCKET_CHECK(dtype == at::kFloat || dtype == at::kDouble, "found {}", at::toString(dtype));
  const int third = head_dim / 6;
  const std::array<int, 3> pairs{head_dim / 2 - 2 * third, third, third};
  RopeTables tables{at::empty({count, head_dim / 2}, dtype),
                    at::empty({count, head_dim / 2}, dtype)};
  if (dtype == at::kDouble) {
    fill(layout, first, count, pairs, tables.cos.data_ptr<double>(), tables.sin.data_ptr<double>());
  } else {
    fill(layout, first, count, pairs, tables.cos.data_ptr<float>(), tables.sin.data_ptr<float>());
  }
  return tables;
}

}  // namespace sprocket::models

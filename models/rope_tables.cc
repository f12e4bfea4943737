#include "models/rope_tables.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <ATen/ops/empty.h>

#include "base/error.h"

namespace sprocket::models {
namespace {

constexpr double kTheta = 10000;

struct CosSin {
  double cos, sin;
};

// [positions, pairs] of one axis.
std::vector<CosSin> axis_table(const RotaryAxis& axis) {
  std::vector<CosSin> table;
  table.reserve(axis.positions.size() * axis.pairs);
  for (const double position : axis.positions) {
    for (int i = 0; i < axis.pairs; ++i) {
      const double angle = position * std::pow(kTheta, -static_cast<double>(i) / axis.pairs);
      table.push_back({std::cos(angle), std::sin(angle)});
    }
  }
  return table;
}

template <class A>
void fill(const parallel::TokenLayout& layout, int64_t first, int64_t count,
          const std::array<RotaryAxis, 3>& axes, A* cos, A* sin) {
  const std::array<std::vector<CosSin>, 3> tables{axis_table(axes[0]), axis_table(axes[1]),
                                                  axis_table(axes[2])};
  const int pairs = axes[0].pairs + axes[1].pairs + axes[2].pairs;
  for (int64_t token = first; token < first + count; ++token) {
    if (layout.is_prefix(token)) {
      cos = std::fill_n(cos, pairs, A{1});
      sin = std::fill_n(sin, pairs, A{0});
      continue;
    }
    const auto position = layout.position(token);
    for (int axis = 0; axis < 3; ++axis) {
      const CosSin* row =
          tables[axis].data() + static_cast<int64_t>(position[axis]) * axes[axis].pairs;
      for (int i = 0; i < axes[axis].pairs; ++i) {
        *cos++ = static_cast<A>(row[i].cos);
        *sin++ = static_cast<A>(row[i].sin);
      }
    }
  }
}

}  // namespace

RopeTables rope_tables(const parallel::TokenLayout& layout, int64_t first, int64_t count,
                       const std::array<RotaryAxis, 3>& axes, at::ScalarType dtype) {
  SPROCKET_CHECK(dtype == at::kFloat || dtype == at::kDouble, "found {}", at::toString(dtype));
  const int pairs = axes[0].pairs + axes[1].pairs + axes[2].pairs;
  RopeTables tables{at::empty({count, pairs}, dtype), at::empty({count, pairs}, dtype)};
  if (dtype == at::kDouble) {
    fill(layout, first, count, axes, tables.cos.data_ptr<double>(), tables.sin.data_ptr<double>());
  } else {
    fill(layout, first, count, axes, tables.cos.data_ptr<float>(), tables.sin.data_ptr<float>());
  }
  return tables;
}

std::vector<double> whole_positions(int count) {
  std::vector<double> positions(count);
  std::iota(positions.begin(), positions.end(), 0.0);
  return positions;
}

}  // namespace sprocket::models

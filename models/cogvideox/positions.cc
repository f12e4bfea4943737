#include "models/cogvideox/positions.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/empty.h>

#include "base/error.h"

namespace sprocket::models {
namespace {

// [positions, features] of one axis, sines first.
std::vector<double> sinusoids_of_axis(int count, double scale, int features) {
  const int half = features / 2;
  std::vector<double> table;
  table.reserve(static_cast<size_t>(count) * features);
  for (int position = 0; position < count; ++position) {
    const auto angle = [&](int i) {
      return position / scale * std::pow(10000.0, -static_cast<double>(i) / half);
    };
    for (int i = 0; i < half; ++i) table.push_back(std::sin(angle(i)));
    for (int i = 0; i < half; ++i) table.push_back(std::cos(angle(i)));
  }
  return table;
}

std::vector<double> between(double first, double last, int count) {
  std::vector<double> points(count, first);
  for (int i = 1; i < count; ++i) points[i] = first + (last - first) * i / (count - 1);
  return points;
}

// The extent `size` of which `start` is before it.
std::vector<double> cells(double start, double size, int count) {
  return between(start, (start + size) * (count - 1) / count, count);
}

PlanePositions plane_positions(const CogVideoXConfig& config, const parallel::Grid& grid) {
  switch (config.positions) {
    case CogVideoXPositions::kScaledRope:
      return fitted_positions(grid.h, grid.w, config.base_height, config.base_width);
    case CogVideoXPositions::kRope:
      return {whole_positions(grid.h), whole_positions(grid.w)};
    case CogVideoXPositions::kSinusoids:
      break;
  }
  throw InternalError("rotary positions of a model without them");
}

}  // namespace

at::Tensor sinusoid_positions(const CogVideoXConfig& config, const parallel::TokenLayout& layout,
                              int64_t first, int64_t count, at::ScalarType dtype) {
  SPROCKET_CHECK(config.dim % 16 == 0, "found {} features", config.dim);
  const parallel::Grid& grid = layout.spec.grid;
  const int of_t = config.dim / 4, of_plane = 3 * config.dim / 8;
  const auto t = sinusoids_of_axis(grid.t, config.temporal_scale, of_t);
  const auto h = sinusoids_of_axis(grid.h, config.spatial_scale, of_plane);
  const auto w = sinusoids_of_axis(grid.w, config.spatial_scale, of_plane);
  const at::Tensor table = at::empty({count, config.dim}, at::kDouble);
  double* out = table.data_ptr<double>();
  for (int64_t token = first; token < first + count; ++token) {
    const auto position = layout.position(token);
    out = std::copy_n(t.data() + static_cast<int64_t>(position[0]) * of_t, of_t, out);
    out = std::copy_n(w.data() + static_cast<int64_t>(position[2]) * of_plane, of_plane, out);
    out = std::copy_n(h.data() + static_cast<int64_t>(position[1]) * of_plane, of_plane, out);
  }
  return table.to(dtype);
}

RopeTables cogvideox_rope(const CogVideoXConfig& config, const parallel::TokenLayout& layout,
                          int64_t first, int64_t count, at::ScalarType dtype) {
  const int head_dim = config.head_dim();
  SPROCKET_CHECK(head_dim % 16 == 0, "found {} channels in a head", head_dim);
  const parallel::Grid& grid = layout.spec.grid;
  const PlanePositions plane = plane_positions(config, grid);
  return rope_tables(
      layout, first, count,
      {RotaryAxis{head_dim / 8, whole_positions(grid.t)}, RotaryAxis{3 * head_dim / 16, plane.h},
       RotaryAxis{3 * head_dim / 16, plane.w}},
      dtype);
}

PlanePositions fitted_positions(int h, int w, int base_height, int base_width) {
  const double base_h = base_height, base_w = base_width;
  double height = base_h, width = base_w;
  if (static_cast<double>(h) / w > base_h / base_w) {
    width = std::nearbyint(base_h / h * w);
  } else {
    height = std::nearbyint(base_w / w * h);
  }
  return {cells(std::nearbyint((base_h - height) / 2), height, h),
          cells(std::nearbyint((base_w - width) / 2), width, w)};
}

}  // namespace sprocket::models

#include "parallel/token_layout.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace sprocket::parallel {
namespace {

struct Box {
  std::array<int, 3> begin, end;  // in cubes
  int extent(int axis) const { return end[axis] - begin[axis]; }
  bool empty() const { return extent(0) <= 0 || extent(1) <= 0 || extent(2) <= 0; }
};

// Emits the cubes of a box so that every contiguous range is nearly a box.
class KdOrder {
 public:
  KdOrder(const Box& all, int domains) { split(all, domains); }
  std::vector<std::array<int, 3>> cubes;
  std::vector<int32_t> domain_first;

 private:
  static int longest_axis(const Box& box) {
    int axis = 2;
    for (int candidate : {1, 0}) {
      if (box.extent(candidate) > box.extent(axis)) axis = candidate;
    }
    return axis;
  }

  static int cut_position(int extent, int left_domains, int domains) {
    return (extent * left_domains + domains / 2) / domains;
  }

  // Among the axes at least half as long as the longest, the one whose cut comes nearest to the
  // wanted shares; then the longest, then the last. Even domains are even work for the ranks.
  static int most_even_axis(const Box& box, int left_domains, int domains) {
    const int longest = longest_axis(box);
    const auto error = [&](int axis) {
      const int extent = box.extent(axis);
      return std::abs(static_cast<double>(cut_position(extent, left_domains, domains)) / extent -
                      static_cast<double>(left_domains) / domains);
    };
    int best = longest;
    for (int axis : {2, 1, 0}) {
      if (box.empty() || 2 * box.extent(axis) < box.extent(longest)) continue;
      if (error(axis) < error(best) ||
          (error(axis) == error(best) && box.extent(axis) > box.extent(best))) {
        best = axis;
      }
    }
    return best;
  }

  static std::pair<Box, Box> cut(const Box& box, int axis, int position) {
    Box left = box, right = box;
    left.end[axis] = right.begin[axis] = box.begin[axis] + position;
    return {left, right};
  }

  void split(const Box& box, int domains) {
    if (domains == 1) {
      domain_first.push_back(static_cast<int32_t>(cubes.size()));
      halve(box);
      return;
    }
    const int left_domains = domains / 2;
    const int axis = most_even_axis(box, left_domains, domains);
    const int position = cut_position(box.extent(axis), left_domains, domains);
    const auto [left, right] = cut(box, axis, position);
    split(left, left_domains);
    split(right, domains - left_domains);
  }

  void halve(const Box& box) {
    if (box.empty()) return;
    const int axis = longest_axis(box);
    if (box.extent(axis) == 1) {
      cubes.push_back(box.begin);
      return;
    }
    const auto [left, right] = cut(box, axis, (box.extent(axis) + 1) / 2);
    halve(left);
    halve(right);
  }
};

std::string divisors(int value) {
  std::string text;
  for (int candidate = 1; candidate <= value; ++candidate) {
    if (value % candidate == 0) text += (text.empty() ? "" : ", ") + std::to_string(candidate);
  }
  return text;
}

}  // namespace

std::array<int32_t, 3> TokenLayout::position(int64_t token) const {
  const int64_t raster = raster_index[token];
  const int64_t plane = static_cast<int64_t>(spec.grid.h) * spec.grid.w;
  return {static_cast<int32_t>(raster / plane), static_cast<int32_t>(raster % plane / spec.grid.w),
          static_cast<int32_t>(raster % spec.grid.w)};
}

TokenLayout make_token_layout(const TokenLayoutSpec& spec) {
  const Grid& grid = spec.grid;
  const Grid& cube = spec.cube;
  if (grid.t < 1 || grid.h < 1 || grid.w < 1 || cube.t < 1 || cube.h < 1 || cube.w < 1 ||
      spec.domains < 1) {
    throw ConfigError(fmt::format(
        "token layout: expected positive extents, found grid {}x{}x{}, cube {}x{}x{}, domains {}",
        grid.t, grid.h, grid.w, cube.t, cube.h, cube.w, spec.domains));
  }
  const std::array<int, 3> size{grid.t, grid.h, grid.w}, edge{cube.t, cube.h, cube.w};
  Box all{{0, 0, 0}, {}};
  for (int axis = 0; axis < 3; ++axis) all.end[axis] = (size[axis] + edge[axis] - 1) / edge[axis];

  TokenLayout layout;
  layout.spec = spec;
  std::vector<std::array<int, 3>> cubes;
  switch (spec.order) {
    case BlockOrder::kKd: {
      KdOrder order(all, spec.domains);
      cubes = std::move(order.cubes);
      layout.domain_blocks = std::move(order.domain_first);
      break;
    }
    case BlockOrder::kRaster: {
      for (int t = 0; t < all.end[0]; ++t)
        for (int h = 0; h < all.end[1]; ++h)
          for (int w = 0; w < all.end[2]; ++w) cubes.push_back({t, h, w});
      const int64_t count = static_cast<int64_t>(cubes.size());
      for (int g = 0; g < spec.domains; ++g) {
        layout.domain_blocks.push_back(static_cast<int32_t>(count * g / spec.domains));
      }
      break;
    }
  }
  layout.domain_blocks.push_back(static_cast<int32_t>(cubes.size()));

  layout.block_offsets.push_back(0);
  layout.raster_index.reserve(grid.tokens());
  for (const auto& [ct, ch, cw] : cubes) {
    for (int t = ct * cube.t; t < std::min((ct + 1) * cube.t, grid.t); ++t)
      for (int h = ch * cube.h; h < std::min((ch + 1) * cube.h, grid.h); ++h)
        for (int w = cw * cube.w; w < std::min((cw + 1) * cube.w, grid.w); ++w)
          layout.raster_index.push_back((static_cast<int64_t>(t) * grid.h + h) * grid.w + w);
    layout.block_offsets.push_back(static_cast<int64_t>(layout.raster_index.size()));
  }
  SPROCKET_CHECK_EQ(layout.tokens(), grid.tokens());
  return layout;
}

ShardPlan make_shard_plan(const TokenLayout& layout, const MeshShape& mesh) {
  const int domains = layout.spec.domains, outer = mesh.outer;
  ShardPlan plan;
  plan.mesh = mesh;
  if (domains > 1) {
    if (domains % outer != 0) {
      throw ConfigError(
          fmt::format("parallel.outer: {} does not divide attention.domains: {}; legal: {}", outer,
                      domains, divisors(domains)));
    }
    for (int r = 0; r <= outer; ++r) {
      plan.outer_blocks.push_back(layout.domain_blocks[r * (domains / outer)]);
    }
  } else {
    // Shard borders are the block borders nearest to equal shares of the tokens.
    const auto& offsets = layout.block_offsets;
    for (int r = 0; r <= outer; ++r) {
      const int64_t share = layout.tokens() * r / outer;
      auto above = std::lower_bound(offsets.begin(), offsets.end(), share);
      if (above != offsets.begin() && share - *(above - 1) < *above - share) --above;
      plan.outer_blocks.push_back(static_cast<int32_t>(above - offsets.begin()));
    }
  }
  plan.rank_tokens.push_back(0);
  for (int r = 0; r <= outer; ++r) {
    plan.outer_tokens.push_back(layout.block_offsets[plan.outer_blocks[r]]);
    if (r == 0) continue;
    const int64_t first = plan.outer_tokens[r - 1], count = plan.outer_tokens[r] - first;
    for (int u = 1; u <= mesh.ulysses; ++u) {
      plan.rank_tokens.push_back(first + count * u / mesh.ulysses);
    }
  }
  return plan;
}

}  // namespace sprocket::parallel

#include "parallel/token_layout.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "parallel/gilbert_curve.h"

namespace sprocket::parallel {
namespace {

using Cell = std::array<int32_t, 3>;  // (t, h, w)

struct Box {
  Cell begin, end;  // in cubes
  int extent(int axis) const { return end[axis] - begin[axis]; }
  bool empty() const { return extent(0) <= 0 || extent(1) <= 0 || extent(2) <= 0; }
};

// Emits the cubes of a box so that every contiguous range is nearly a box.
class KdOrder {
 public:
  KdOrder(const Box& all, int domains) { split(all, domains); }
  std::vector<Cell> cubes;
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

std::vector<Cell> raster_cells(const Cell& size) {
  std::vector<Cell> cells;
  for (int t = 0; t < size[0]; ++t)
    for (int h = 0; h < size[1]; ++h)
      for (int w = 0; w < size[2]; ++w) cells.push_back({t, h, w});
  return cells;
}

// Borders of ranges whose numbers of blocks differ by at most one, the last being among the
// largest.
std::vector<int32_t> borders_by_blocks(int first, int last, int ranges) {
  std::vector<int32_t> borders;
  for (int r = 0; r <= ranges; ++r) {
    borders.push_back(first +
                      static_cast<int32_t>(static_cast<int64_t>(last - first) * r / ranges));
  }
  return borders;
}

// The block borders nearest to equal shares of the tokens in the blocks from `first` on.
std::vector<int32_t> borders_by_tokens(const std::vector<int64_t>& offsets, int first, int ranges) {
  const auto begin = offsets.begin() + first;
  std::vector<int32_t> borders;
  for (int r = 0; r <= ranges; ++r) {
    const int64_t share = *begin + (offsets.back() - *begin) * r / ranges;
    auto above = std::lower_bound(begin, offsets.end(), share);
    if (above != begin && share - *(above - 1) < *above - share) --above;
    borders.push_back(static_cast<int32_t>(above - offsets.begin()));
  }
  return borders;
}

bool uses_cubes(BlockOrder order) { return order != BlockOrder::kHilbert; }

void check(const TokenLayoutSpec& spec) {
  const Grid &grid = spec.grid, &cube = spec.cube;
  if (grid.t < 1 || grid.h < 1 || grid.w < 1 || spec.domains < 1 ||
      (uses_cubes(spec.order) && (cube.t < 1 || cube.h < 1 || cube.w < 1))) {
    throw ConfigError(fmt::format(
        "token layout: expected positive extents, found grid {}x{}x{}, cube {}x{}x{}, domains {}",
        grid.t, grid.h, grid.w, cube.t, cube.h, cube.w, spec.domains));
  }
  if (spec.block_tokens < 1 || spec.prefix_block_tokens < 1) {
    throw ConfigError(fmt::format(
        "token layout: expected at least one token in a block, found {} in a block of the video "
        "and {} in a block of the prefix",
        spec.block_tokens, spec.prefix_block_tokens));
  }
  for (size_t i = 0; i < spec.prefix.size(); ++i) {
    if (spec.prefix[i] < 0) {
      throw ConfigError(
          fmt::format("token layout: expected a length of zero or more, found {} in prefix segment "
                      "{} of {}",
                      spec.prefix[i], i, spec.prefix.size()));
    }
  }
}

// Ends blocks after every `rows` tokens and after the last one.
void end_blocks(TokenLayout& layout, int64_t rows) {
  const int64_t end = static_cast<int64_t>(layout.raster_index.size());
  while (layout.tokens() < end) {
    layout.block_offsets.push_back(std::min(layout.tokens() + rows, end));
  }
}

void append_prefix(TokenLayout& layout) {
  int64_t next = layout.spec.grid.tokens();
  for (const int64_t length : layout.spec.prefix) {
    for (int64_t i = 0; i < length; ++i) layout.raster_index.push_back(next++);
    end_blocks(layout, layout.spec.prefix_block_tokens);
  }
}

int64_t raster(const Grid& grid, const Cell& at) {
  return (static_cast<int64_t>(at[0]) * grid.h + at[1]) * grid.w + at[2];
}

void append_cubes(TokenLayout& layout, const std::vector<Cell>& cubes) {
  const Grid &grid = layout.spec.grid, &cube = layout.spec.cube;
  for (const auto& [ct, ch, cw] : cubes) {
    for (int t = ct * cube.t; t < std::min((ct + 1) * cube.t, grid.t); ++t)
      for (int h = ch * cube.h; h < std::min((ch + 1) * cube.h, grid.h); ++h)
        for (int w = cw * cube.w; w < std::min((cw + 1) * cube.w, grid.w); ++w)
          layout.raster_index.push_back(raster(grid, {t, h, w}));
    end_blocks(layout, cube.tokens());
  }
}

void append_curve(TokenLayout& layout) {
  const Grid& grid = layout.spec.grid;
  for (const Cell& at : gilbert_curve({grid.t, grid.h, grid.w})) {
    layout.raster_index.push_back(raster(grid, at));
  }
  end_blocks(layout, layout.spec.block_tokens);
}

std::string divisors(int value) {
  std::string text;
  for (int candidate = 1; candidate <= value; ++candidate) {
    if (value % candidate == 0) text += (text.empty() ? "" : ", ") + std::to_string(candidate);
  }
  return text;
}

}  // namespace

int64_t TokenLayout::block_capacity() const {
  const int64_t video = uses_cubes(spec.order) ? spec.cube.tokens() : spec.block_tokens;
  return prefix_blocks() == 0 ? video : std::max<int64_t>(video, spec.prefix_block_tokens);
}

std::array<int32_t, 3> TokenLayout::position(int64_t token) const {
  SPROCKET_CHECK(!is_prefix(token), "token {} is one of the {} of the prefix", token,
                 prefix_tokens());
  const int64_t raster = raster_index[token];
  const int64_t plane = static_cast<int64_t>(spec.grid.h) * spec.grid.w;
  return {static_cast<int32_t>(raster / plane), static_cast<int32_t>(raster % plane / spec.grid.w),
          static_cast<int32_t>(raster % spec.grid.w)};
}

TokenLayout make_token_layout(const TokenLayoutSpec& spec) {
  check(spec);
  const auto cubes_along = [](int extent, int edge) { return (extent - 1) / edge + 1; };
  const auto cube_grid = [&]() -> Cell {
    return {cubes_along(spec.grid.t, spec.cube.t), cubes_along(spec.grid.h, spec.cube.h),
            cubes_along(spec.grid.w, spec.cube.w)};
  };

  TokenLayout layout;
  layout.spec = spec;
  layout.block_offsets.push_back(0);
  const int64_t tokens =
      std::accumulate(spec.prefix.begin(), spec.prefix.end(), spec.grid.tokens());
  layout.raster_index.reserve(tokens);
  append_prefix(layout);
  const int first = layout.blocks();
  switch (spec.order) {
    case BlockOrder::kRaster:
      append_cubes(layout, raster_cells(cube_grid()));
      layout.domain_blocks = borders_by_blocks(first, layout.blocks(), spec.domains);
      break;
    case BlockOrder::kKd: {
      KdOrder order({{0, 0, 0}, cube_grid()}, spec.domains);
      append_cubes(layout, order.cubes);
      for (const int32_t block : order.domain_first) layout.domain_blocks.push_back(first + block);
      layout.domain_blocks.push_back(layout.blocks());
      break;
    }
    case BlockOrder::kHilbert:
      append_curve(layout);
      layout.domain_blocks = borders_by_blocks(first, layout.blocks(), spec.domains);
      break;
    case BlockOrder::kCubeHilbert:
      // Partial cubes lie together on this curve, so equal numbers of blocks are unequal work.
      append_cubes(layout, gilbert_curve(cube_grid()));
      layout.domain_blocks = borders_by_tokens(layout.block_offsets, first, spec.domains);
      break;
  }
  SPROCKET_CHECK_EQ(layout.tokens(), tokens);
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
    plan.outer_blocks.front() = 0;
  } else {
    plan.outer_blocks = borders_by_tokens(layout.block_offsets, 0, outer);
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

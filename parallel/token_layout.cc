#include "parallel/token_layout.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <tuple>

#include "base/error.h"
#include "parallel/gilbert_curve.h"

namespace sprocket::parallel {
namespace {

using Cell = std::array<int32_t, 3>;  // (t, h, w)

int64_t tokens_in(const Cell& cube, const TokenLayoutSpec& spec) {
  const auto rows = [](int32_t at, int edge, int extent) {
    return std::min((at + 1) * edge, extent) - at * edge;
  };
  return int64_t{rows(cube[0], spec.cube.t, spec.grid.t)} *
         rows(cube[1], spec.cube.h, spec.grid.h) * rows(cube[2], spec.cube.w, spec.grid.w);
}

// Halves the cubes again and again across their longest extent, at the cube that leaves equal
// tokens on both sides, so that every range is compact and domains are even work for the ranks
// (recursive coordinate bisection, Berger and Bokhari 1987).
class KdOrder {
 public:
  KdOrder(std::vector<Cell> all_cubes, const TokenLayoutSpec& spec)
      : cubes(std::move(all_cubes)), spec_(spec) {
    split(cubes.begin(), cubes.end(), spec.domains);
    domain_first.push_back(static_cast<int32_t>(std::ssize(cubes)));
  }
  std::vector<Cell> cubes;
  std::vector<int32_t> domain_first;  // [domains + 1]

 private:
  using Place = std::vector<Cell>::iterator;

  // How far from `share` of the tokens the nearest whole plane of cubes across `axis` divides them.
  double error_of_plane(Place begin, Place end, int axis, double share) const {
    std::map<int32_t, int64_t> planes;
    for (Place at = begin; at != end; ++at) planes[(*at)[axis]] += tokens_in(*at, spec_);
    double all = 0, before = 0, error = 1;
    for (const auto& [position, tokens] : planes) all += static_cast<double>(tokens);
    for (const auto& [position, tokens] : planes) {
      before += static_cast<double>(tokens);
      error = std::min(error, std::abs(before / all - share));
    }
    return error;
  }

  // Of the axes at least half as long as the longest, first the one that planes divide best, which
  // leaves boxes or nearly so, then the longest, then the last; the others by length.
  std::array<int, 3> axes(Place begin, Place end, double share) const {
    Cell extent{};
    for (int axis = 0; axis < 3; ++axis) {
      const auto less = [&](const Cell& a, const Cell& b) { return a[axis] < b[axis]; };
      const auto [least, most] = std::minmax_element(begin, end, less);
      extent[axis] = (*most)[axis] - (*least)[axis] + 1;
    }
    std::array<int, 3> axes{2, 1, 0};
    std::stable_sort(axes.begin(), axes.end(), [&](int a, int b) { return extent[a] > extent[b]; });
    const auto longest = axes.begin();
    const auto shorter = std::find_if(
        axes.begin(), axes.end(), [&](int axis) { return 2 * extent[axis] < extent[*longest]; });
    const auto best = std::min_element(longest, shorter, [&](int a, int b) {
      return error_of_plane(begin, end, a, share) < error_of_plane(begin, end, b, share);
    });
    std::rotate(longest, best, best + 1);
    return axes;
  }

  // Sorts the cubes along the axes; the border nearest to `part` of `parts` of their tokens.
  Place cut(Place begin, Place end, int part, int parts) const {
    if (begin == end) return end;
    const auto [first, second, third] = axes(begin, end, static_cast<double>(part) / parts);
    std::sort(begin, end, [&](const Cell& a, const Cell& b) {
      return std::tie(a[first], a[second], a[third]) < std::tie(b[first], b[second], b[third]);
    });
    int64_t all = 0, before = 0;
    for (Place at = begin; at != end; ++at) all += tokens_in(*at, spec_);
    return std::find_if(begin, end, [&](const Cell& cube) {
      const int64_t tokens = tokens_in(cube, spec_), middle = 2 * before + tokens;
      before += tokens;
      return middle * parts > 2 * all * part;
    });
  }

  void split(Place begin, Place end, int domains) {
    if (domains == 1) {
      domain_first.push_back(static_cast<int32_t>(begin - cubes.begin()));
      halve(begin, end);
      return;
    }
    const int left_domains = domains / 2;
    const Place middle = cut(begin, end, left_domains, domains);
    split(begin, middle, left_domains);
    split(middle, end, domains - left_domains);
  }

  void halve(Place begin, Place end) {
    if (end - begin <= 1) return;
    const Place middle = std::clamp(cut(begin, end, 1, 2), begin + 1, end - 1);
    halve(begin, middle);
    halve(middle, end);
  }

  const TokenLayoutSpec& spec_;
};

std::vector<Cell> raster_cells(const Cell& size) {
  std::vector<Cell> cells;
  for (int t = 0; t < size[0]; ++t)
    for (int h = 0; h < size[1]; ++h)
      for (int w = 0; w < size[2]; ++w) cells.push_back({t, h, w});
  return cells;
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
      break;
    case BlockOrder::kKd: {
      const KdOrder order(raster_cells(cube_grid()), spec);
      append_cubes(layout, order.cubes);
      for (const int32_t cube : order.domain_first) layout.domain_blocks.push_back(first + cube);
      break;
    }
    case BlockOrder::kHilbert:
      append_curve(layout);
      break;
    case BlockOrder::kCubeHilbert:
      append_cubes(layout, gilbert_curve(cube_grid()));
      break;
  }
  if (layout.domain_blocks.empty()) {
    layout.domain_blocks = borders_by_tokens(layout.block_offsets, first, spec.domains);
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

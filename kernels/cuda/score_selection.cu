#include "kernels/cuda/score_selection.h"

#include "kernels/cuda/bitmap_rows.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_sort.cuh"
#include "kernels/row_counts.h"
#include "kernels/score_key.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kLanes = 32;
constexpr int kMostWarps = 8;

// A warp's row, with its keys in the order of the blocks and sorted.
struct Row {
  int lane, warp;
  int64_t index;  // of the table
  bool exists;
  bool is_prefix;  // it lists everything
  int size;
  uint32_t *keys, *sorted;
};

__device__ Row row_of_warp(const DeviceScores& p, uint32_t* shared) {
  Row row{};
  const int warps = static_cast<int>(blockDim.x) / kLanes;
  row.warp = static_cast<int>(threadIdx.x) / kLanes;
  row.lane = static_cast<int>(threadIdx.x) % kLanes;
  row.index = static_cast<int64_t>(blockIdx.x) * warps + row.warp;
  row.exists = row.index < p.rows();
  row.is_prefix = row.index % p.query_blocks <
                  prefix_rows_of(p.prefix_blocks, p.first_query_block, p.query_blocks);
  row.size = p.video_blocks();
  row.keys = shared + 2 * row.warp * row.size;
  row.sorted = row.keys + row.size;
  if (!row.exists || row.is_prefix) return row;
  const float* scores = p.scores + row.index * row.size;
  for (int j = row.lane; j < row.size; j += kLanes) {
    row.keys[j] = row.sorted[j] = ordered_bits(scores[j]);
  }
  __syncwarp();
  sort_descending(row.lane, row.sorted, row.size);
  return row;
}

// step(position, cumulated mass) along the sorted row, until it returns true; gives the last sum.
template <class Step>
__device__ double cumulate(const Row& row, Step step) {
  return add_in_order(
      row.lane, row.size,
      [&](int i) -> double {
        const float score = value_of_ordered(row.sorted[i]);
        return score == score ? score : 0.0f;
      },
      step);
}

__device__ double total_of(const Row& row) {
  return cumulate(row, [](int, double) { return false; });
}

__global__ void __launch_bounds__(kMostWarps* kLanes)
    mass_kernel(DeviceScores p, MassBounds bounds, uint32_t* bitmaps) {
  extern __shared__ uint32_t shared[];
  const Row row = row_of_warp(p, shared);
  if (!row.exists) return;
  uint32_t* words = bitmaps + row.index * bitmap_words(p.kv_blocks);
  if (row.is_prefix || row.size == 0) {
    write_everything(row.lane, p.kv_blocks, words);
    return;
  }
  const double threshold = bounds.mass.of(total_of(row));
  int64_t kept = row.size;
  cumulate(row, [&](int position, double sum) {
    if (!(sum >= threshold)) return false;
    kept = position;
    return true;
  });
  if (bounds.include_crossing) ++kept;
  kept = max(bounds.least, min(kept, bounds.most));
  const int last = static_cast<int>(min(kept, static_cast<int64_t>(row.size))) - 1;
  write_choice(row.lane, row.keys, row.size, p.prefix_blocks, words,
               choose_up_to(row.lane, row.sorted, last));
}

// How many sorted blocks are at each level or a finer one.
struct LevelEnds {
  int ends[kMostLevels];
};

__device__ LevelEnds find_ends(const Row& row, const LevelBounds& bounds) {
  LevelEnds found{};
  if (bounds.rule == LevelRule::kQuota) {
    for (int level = 0; level < bounds.levels; ++level) {
      found.ends[level] = min(bounds.positions[level], row.size);
    }
    return found;
  }
  const double total = total_of(row);
  for (int level = 0; level < bounds.levels; ++level) {
    const double threshold = bounds.thresholds[level].of(total);
    int end = row.size;
    cumulate(row, [&](int position, double sum) {
      if (!(sum > threshold)) return false;
      end = position;
      return true;
    });
    if (bounds.rule == LevelRule::kCover) end = min(end + 1, row.size);
    found.ends[level] = end;
  }
  if (bounds.rule == LevelRule::kCover && bounds.levels > 0) {
    found.ends[0] = max(found.ends[0], min(bounds.least_finest, row.size));
  }
  return found;
}

// Marks the segments of a block.
__device__ void mark_segments(const DevicePyramid& pyramid, int levels, int block, int level,
                              uint32_t* words) {
  const int32_t* range = pyramid.ranges + (static_cast<int64_t>(block) * levels + level - 1) * 2;
  for (int32_t segment = range[0]; segment < range[0] + range[1]; ++segment) {
    atomicOr(&words[segment / 32], 1u << (segment % 32));  // bits: in any order
  }
}

__global__ void __launch_bounds__(kMostWarps* kLanes)
    level_kernel(DeviceScores p, LevelBounds bounds, DevicePyramid pyramid, const uint8_t* caps,
                 uint8_t* levels, uint32_t* bitmaps) {
  extern __shared__ uint32_t shared[];
  const Row row = row_of_warp(p, shared);
  if (!row.exists) return;
  const int64_t word_count = bitmap_words(pyramid.segments);
  uint32_t* words = bitmaps + row.index * word_count;
  const uint8_t* caps_of_head =
      caps == nullptr ? nullptr : caps + row.index / p.query_blocks * p.kv_blocks;
  uint8_t* levels_of_row = levels == nullptr ? nullptr : levels + row.index * p.kv_blocks;
  const auto take = [&](int block, int level) {
    if (level > 0) mark_segments(pyramid, bounds.levels, block, level, words);
    if (levels_of_row != nullptr) levels_of_row[block] = static_cast<uint8_t>(level);
  };
  const int finest = row.is_prefix ? p.kv_blocks : p.prefix_blocks;
  for (int block = row.lane; block < finest; block += kLanes) take(block, 1);
  if (row.is_prefix) return;

  const LevelEnds ends = find_ends(row, bounds);
  Choice choices[kMostLevels];
#pragma unroll
  for (int level = 0; level < kMostLevels; ++level) {
    const int end = level < bounds.levels ? ends.ends[level] : 0;
    choices[level] = end > 0 ? choose_up_to(row.lane, row.sorted, end - 1)
                             : Choice{kAllLanes, 0};  // no key is so large
  }
  for (int first = 0; first < row.size; first += kLanes) {
    const int j = first + row.lane;
    const bool exists = j < row.size;
    const uint32_t key = exists ? row.keys[j] : 0;
    int level = 0;
#pragma unroll
    for (int t = kMostLevels - 1; t >= 0; --t) {
      ChoiceWalk walk(choices[t]);
      if (walk.takes(row.lane, key, exists)) level = t + 1;
      choices[t] = walk.rest();
    }
    if (!exists) continue;
    const int block = p.prefix_blocks + j;
    if (caps_of_head != nullptr) level = min(level, static_cast<int>(caps_of_head[block]));
    take(block, level);
  }
}

// A launch whose rows have a warp each, as many as fit.
struct RowLaunch {
  unsigned grid;
  int threads;
  int64_t bytes;
};
RowLaunch launch_of(const DeviceScores& p) {
  const int64_t row_bytes = 2 * 4 * static_cast<int64_t>(p.video_blocks());
  const int64_t limit = shared_memory_limit();
  SPROCKET_CHECK(row_bytes <= limit, "rows of {} blocks need {} bytes of shared memory, found {}",
                 p.video_blocks(), row_bytes, limit);
  int warps = kMostWarps;
  while (warps > 1 && warps * row_bytes > limit) warps /= 2;
  return {grid_of(p.rows(), warps), warps * kLanes, warps * row_bytes};
}

void check_scores(const DeviceScores& p) {
  SPROCKET_CHECK(p.batch >= 0 && p.heads >= 0 && p.query_blocks >= 0 && p.first_query_block >= 0,
                 "scores of [{}, {}, {}] from block {}", p.batch, p.heads, p.query_blocks,
                 p.first_query_block);
  SPROCKET_CHECK(p.prefix_blocks >= 0 && p.prefix_blocks <= p.kv_blocks,
                 "{} of {} blocks are of the prefix", p.prefix_blocks, p.kv_blocks);
}

DeviceTable shape_of(const DeviceScores& p, int kv_blocks, int64_t max_pairs) {
  DeviceTable shape;
  shape.batch = p.batch;
  shape.heads = p.heads;
  shape.query_blocks = p.query_blocks;
  shape.kv_blocks = kv_blocks;
  shape.max_pairs = max_pairs;
  return shape;
}

}  // namespace

int64_t mass_pairs(const DeviceScores& scores, const MassBounds& bounds) {
  const int64_t video = scores.video_blocks();
  const RowCounts counts{
      scores.kv_blocks,
      scores.prefix_blocks,
      bounds.most < video ? bounds.most : video,
      PrefixRule::kExempt,
      scores.query_blocks,
      prefix_rows_of(scores.prefix_blocks, scores.first_query_block, scores.query_blocks)};
  return scores.query_blocks == 0 ? 0 : counts.offset(scores.rows());
}

int64_t mass_workspace_bytes(const DeviceScores& scores) {
  return 4 * scores.rows() * bitmap_words(scores.kv_blocks);
}

DeviceTable select_by_mass(const DeviceScores& scores, const MassBounds& bounds,
                           const DeviceTableBuffers& to, void* workspace, StreamView stream) {
  check_scores(scores);
  SPROCKET_CHECK(bounds.least >= 1 && bounds.least <= bounds.most, "{} to {} blocks", bounds.least,
                 bounds.most);
  uint32_t* bitmaps = static_cast<uint32_t*>(workspace);
  if (scores.rows() > 0) {
    const RowLaunch launch = launch_of(scores);
    allow_shared_memory(mass_kernel, launch.bytes);
    mass_kernel<<<launch.grid, launch.threads, launch.bytes, stream_of(stream)>>>(scores, bounds,
                                                                                  bitmaps);
    check_launch("select_by_mass");
  }
  return table_of_bitmaps(shape_of(scores, scores.kv_blocks, mass_pairs(scores, bounds)), bitmaps,
                          to, stream);
}

int64_t level_pairs(const DeviceScores& scores, const DevicePyramid& pyramid) {
  return scores.rows() * pyramid.segments;
}

int64_t level_workspace_bytes(const DeviceScores& scores, const DevicePyramid& pyramid) {
  return 4 * scores.rows() * bitmap_words(pyramid.segments);
}

DeviceTable select_levels(const DeviceScores& scores, const LevelBounds& bounds,
                          const DevicePyramid& pyramid, const uint8_t* caps, uint8_t* levels,
                          const DeviceTableBuffers& to, void* workspace, StreamView stream) {
  check_scores(scores);
  SPROCKET_CHECK(bounds.levels >= 1 && bounds.levels <= kMostLevels, "{} levels", bounds.levels);
  uint32_t* bitmaps = static_cast<uint32_t*>(workspace);
  if (scores.rows() > 0) {
    const RowLaunch launch = launch_of(scores);
    allow_shared_memory(level_kernel, launch.bytes);
    check_cuda(
        cudaMemsetAsync(bitmaps, 0, level_workspace_bytes(scores, pyramid), stream_of(stream)),
        "cudaMemsetAsync");
    level_kernel<<<launch.grid, launch.threads, launch.bytes, stream_of(stream)>>>(
        scores, bounds, pyramid, caps, levels, bitmaps);
    check_launch("select_levels");
  }
  return table_of_bitmaps(shape_of(scores, pyramid.segments, level_pairs(scores, pyramid)), bitmaps,
                          to, stream);
}

}  // namespace sprocket::kernels::cuda

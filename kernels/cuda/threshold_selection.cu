#include "kernels/cuda/threshold_selection.h"

#include "kernels/cuda/bitmap_rows.cuh"
#include "kernels/cuda/coarse_attention_tile.cuh"
#include "kernels/cuda/row_sort.cuh"
#include "kernels/lane_exp.h"
#include "kernels/row_counts.h"
#include "kernels/score_key.h"

namespace sprocket::kernels::cuda {
namespace {

using row_tile::kLanes;
using row_tile::kThreads;
using row_tile::kWarps;

// A row of a warp: keys of the scores, and as many words to work in.
struct Row {
  int lane;
  int size;
  const uint32_t* keys;
  float* work;
  __device__ float score(int j) const { return value_of_ordered(keys[j]); }
};

// The rule kValue: a score is kept from `threshold` on, both counted from the first score.
struct ValueBound {
  double origin, threshold;
  __device__ bool keeps(float score) const {
    return __dadd_rn(static_cast<double>(score), -origin) >= threshold;
  }
};

__device__ ValueBound value_bound(const Row& row, const ThresholdBounds& bounds) {
  const double origin = row.score(0), count = row.size;
  const auto distance = [&](int j) {
    return __dadd_rn(static_cast<double>(row.score(j)), -origin);
  };
  const double mean = add_by_eight(row.lane, row.size,
                                   [&](double sum, int j) { return __dadd_rn(sum, distance(j)); }) /
                      count;
  const double squares = add_by_eight(row.lane, row.size, [&](double sum, int j) {
    const double centred = __dadd_rn(distance(j), -mean);
    return __fma_rn(centred, centred, sum);
  });
  return {origin, __dadd_rn(mean, __dmul_rn(__dsqrt_rn(squares / count), bounds.quantile))};
}

// What the rule kMass knows of a row whose largest score is finite.
struct Masses {
  float largest;
  float buckets_per_unit;
  __device__ float of(float score) const {
    const float mass = exp_of_lane(score - largest);
    return mass == mass ? mass : 0.0f;
  }
  __device__ int bucket(float score) const { return mass_bucket(score, largest, buckets_per_unit); }
};

// Which bucket the sum of masses crosses the target in, and what lies in front of it; sums:
// [kMassBuckets][2] to work in, of even and of odd positions.
struct Crossing {
  int bucket;
  double mass;
};
__device__ Crossing find_crossing(const Row& row, const Masses& masses, double target,
                                  double* sums) {
  for (int i = row.lane; i < 2 * kMassBuckets; i += kLanes) sums[i] = 0;
  __syncwarp();
  // The first lane of those that share a sum adds for all of them.
  for (int first = 0; first < row.size; first += kLanes) {
    const int j = first + row.lane;
    const int bucket = j < row.size ? masses.bucket(row.score(j)) : kMassBuckets;
    const int place = 2 * bucket + j % 2;
    uint32_t sharers = __match_any_sync(kAllLanes, place);
    if (bucket < kMassBuckets && count_before(row.lane, sharers) == 0) {
      double sum = sums[place];
      for (; sharers != 0; sharers &= sharers - 1) {
        sum = __dadd_rn(sum, row.work[first + __ffs(static_cast<int>(sharers)) - 1]);
      }
      sums[place] = sum;
    }
    __syncwarp();
  }
  Crossing crossing{0, 0};
  for (; crossing.bucket < kMassBuckets; ++crossing.bucket) {
    const double* both = sums + 2 * crossing.bucket;
    const double with = __dadd_rn(crossing.mass, __dadd_rn(both[0], both[1]));
    if (with >= target) break;
    crossing.mass = with;
  }
  return crossing;
}

// The rule kMass, but for its least count. Masses stay in row.work until they have been added up.
__device__ Choice choose_mass(const Row& row, const ThresholdBounds& bounds, double* sums) {
  uint32_t largest_key = 0;
  for (int j = row.lane; j < row.size; j += kLanes) largest_key = max(largest_key, row.keys[j]);
  Masses masses{value_of_ordered(__reduce_max_sync(kAllLanes, largest_key)), 0};
  // +inf takes all of the mass; only -inf and NaN: all are alike.
  const bool finite = isfinite(masses.largest), all_alike = !finite && !(masses.largest > 0);
  const uint32_t top = ordered_bits(INFINITY);
  const auto mass = [&](int j) -> double {
    if (finite) return row.work[j];
    return all_alike || row.keys[j] == top ? 1.0 : 0.0;
  };
  if (finite) {
    for (int j = row.lane; j < row.size; j += kLanes) row.work[j] = masses.of(row.score(j));
  }
  __syncwarp();
  const double total =
      add_by_eight(row.lane, row.size, [&](double sum, int j) { return __dadd_rn(sum, mass(j)); });
  const double target = __dmul_rn(bounds.tau, total);
  Crossing crossing{kMassBuckets, 0};
  if (finite) {
    masses.buckets_per_unit =
        static_cast<float>(mass_buckets_per_unit(row.size, bounds.tau, total));
    crossing = find_crossing(row, masses, target, sums);
  }
  // Keys of the bucket, sorted, instead of the masses.
  __syncwarp();
  uint32_t* sorted = reinterpret_cast<uint32_t*>(row.work);
  int count = 0;
  for (int j = row.lane; j - row.lane < row.size; j += kLanes) {
    const bool inside = j < row.size && (!finite || masses.bucket(row.score(j)) == crossing.bucket);
    const uint32_t inside_lanes = __ballot_sync(kAllLanes, inside);
    if (inside) sorted[count + count_before(row.lane, inside_lanes)] = row.keys[j];
    count += __popc(inside_lanes);
  }
  __syncwarp();
  // Only rounding kept the sum below a target close to it.
  if (count == 0) return {0, row.size};
  sort_descending(row.lane, sorted, count);
  int last = count - 1;
  const double rest = __dadd_rn(target, -crossing.mass);
  add_in_order(
      row.lane, count,
      [&](int i) -> double {
        if (finite) return masses.of(value_of_ordered(sorted[i]));
        return all_alike || sorted[i] == top ? 1.0 : 0.0;
      },
      [&](int i, double sum) {
        if (!(sum >= rest)) return false;
        last = i;
        return true;
      });
  return choose_up_to(row.lane, sorted, last);
}

__device__ void write_row(const Row& row, int prefix, const ThresholdBounds& bounds, double* sums,
                          uint32_t* words) {
  int kept = 0;
  switch (bounds.rule) {
    case ThresholdRule::kValue: {
      const ValueBound bound = value_bound(row, bounds);
      kept = write_taken(
          row.lane, row.keys, row.size, prefix, words,
          [&](uint32_t key, bool exists) { return exists && bound.keeps(value_of_ordered(key)); });
      break;
    }
    case ThresholdRule::kMass: {
      const Choice choice = choose_mass(row, bounds, sums);
      kept = count_from(row.lane, row.keys, row.size, choice.threshold + 1) + choice.ties;
      if (kept >= bounds.least) {
        write_choice(row.lane, row.keys, row.size, prefix, words, choice);
      }
      break;
    }
  }
  if (kept >= bounds.least) return;
  __syncwarp();
  write_choice(row.lane, row.keys, row.size, prefix, words,
               choose_largest(row.lane, row.keys, row.size, bounds.least));
}

// A tile's rows have a warp each.
template <int kRows>
__global__ void __launch_bounds__(kThreads, 2)
    threshold_kernel(CoarseView p, ThresholdBounds bounds, int prefix, int prefix_rows,
                     uint32_t* bitmaps) {
  static_assert(kRows <= kWarps);
  static_assert(row_tile::stage_floats(kRows) >= int64_t{kRows} * 2 * 2 * kMassBuckets);
  extern __shared__ float4 shared[];
  const TileRows tile(p.query_blocks, kRows);
  const int video = p.kv_blocks - prefix;
  const int64_t pitch = row_tile::row_pitch(video);
  uint32_t* keys = reinterpret_cast<uint32_t*>(shared);
  float* work = reinterpret_cast<float*>(keys + kRows * pitch);
  float* stage = work + kRows * pitch;
  row_tile::multiply_rows<kRows>(p.qc + p.query(tile.batch_head, tile.first), tile.count,
                                 p.kc + p.key(tile.batch_head, prefix), video, p.head_dim, stage,
                                 [&](int i, int j, float sum) {
                                   keys[i * pitch + j] = ordered_bits(__fmul_rn(sum, p.scale));
                                 });
  const int warp = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  if (warp >= tile.count) return;
  const int64_t row = tile.batch_head * p.query_blocks + tile.first + warp;
  uint32_t* words = bitmaps + row * bitmap_words(p.kv_blocks);
  if (bounds.keeps_all || tile.first + warp < prefix_rows) {
    write_everything(lane, p.kv_blocks, words);
    return;
  }
  write_row({lane, video, keys + warp * pitch, work + warp * pitch}, prefix, bounds,
            reinterpret_cast<double*>(stage) + warp * 2 * kMassBuckets, words);
}

int64_t rows_of(const DeviceCoarseProblem& p) {
  return static_cast<int64_t>(p.batch) * p.heads * p.query_blocks;
}

}  // namespace

int64_t most_pairs(const DeviceCoarseProblem& problem) {
  return rows_of(problem) * problem.kv_blocks;
}

int64_t threshold_workspace_bytes(const DeviceCoarseProblem& problem) {
  return 4 * rows_of(problem) * bitmap_words(problem.kv_blocks);
}

DeviceTable select_by_threshold(const DeviceCoarseProblem& problem, const ThresholdBounds& bounds,
                                const DeviceTableBuffers& to, void* workspace, StreamView stream) {
  check_problem(problem);
  const int video = problem.kv_blocks - problem.prefix_blocks;
  SPROCKET_CHECK(bounds.keeps_all || video == 0 || (bounds.least >= 1 && bounds.least < video),
                 "at least {} of {} blocks", bounds.least, video);
  uint32_t* bitmaps = static_cast<uint32_t*>(workspace);
  if (rows_of(problem) > 0) {
    const TileShape shape = tile_shape(2 * row_tile::row_pitch(video), video, kWarps);
    const auto kernel = shape.rows == 8 ? threshold_kernel<8> : threshold_kernel<4>;
    allow_shared_memory(kernel, shape.bytes);
    const unsigned grid = grid_of(
        int64_t{problem.batch} * problem.heads * grid_of(problem.query_blocks, shape.rows), 1);
    kernel<<<grid, kThreads, shape.bytes, stream_of(stream)>>>(
        CoarseView(problem), bounds, problem.prefix_blocks,
        static_cast<int>(
            prefix_rows_of(problem.prefix_blocks, problem.first_query_block, problem.query_blocks)),
        bitmaps);
    check_launch("select_by_threshold");
  }
  DeviceTable shape;
  shape.batch = problem.batch;
  shape.heads = problem.heads;
  shape.query_blocks = problem.query_blocks;
  shape.kv_blocks = problem.kv_blocks;
  shape.max_pairs = most_pairs(problem);
  return table_of_bitmaps(shape, bitmaps, to, stream);
}

}  // namespace sprocket::kernels::cuda

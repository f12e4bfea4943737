// fp32 products of a tile of rows with all rows of a matrix, as selections and the coarse attention
// need them: a tile's products stay in shared memory.
//
// Every product is one chain of fused multiply-adds over ascending channels, every weighted sum one
// over ascending rows. So neither depends on the height of the tile, which is chosen by what fits.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace sprocket::kernels::cuda::row_tile {

constexpr int kThreads = 256;  // that call a function of this file together
constexpr int kLanes = 32;
constexpr int kWarps = kThreads / kLanes;
constexpr int kRowsOfWarp = 4;
constexpr int kColumns = 256;       // of one step
constexpr int kDepth = 16;          // channels of one step
constexpr int kPitch = kDepth + 4;  // eight lanes that read 16 bytes each hit all banks once

// Floats of shared memory that multiply_rows stages its operands in.
constexpr int64_t stage_floats(int rows) { return int64_t{kColumns + rows} * kPitch; }
// Floats from one row of the tile to the next: 16 bytes are one access.
constexpr int64_t row_pitch(int64_t columns) { return (columns + 3) / 4 * 4; }

// How the warps share a tile of kRows rows.
template <int kRows>
struct WarpPlace {
  static constexpr int kGroups = kRows / kRowsOfWarp;  // of rows
  static constexpr int kSides = kWarps / kGroups;      // of columns
  int row = static_cast<int>(threadIdx.x) / kLanes % kGroups * kRowsOfWarp;
  int side = static_cast<int>(threadIdx.x) / kLanes / kGroups;
  int lane = static_cast<int>(threadIdx.x) % kLanes;
};

// stage[row][0 .. kDepth) = from[row][0 .. depth), zeros behind and in rows that do not exist.
template <int kRows>
__device__ void stage_rows(const float* from, int64_t rows, int dim, int depth, float* stage) {
  for (int i = threadIdx.x; i < kRows * kDepth; i += kThreads) {
    const int row = i / kDepth, d = i % kDepth;
    stage[row * kPitch + d] =
        row < rows && d < depth ? from[static_cast<int64_t>(row) * dim + d] : 0.0f;
  }
}

__device__ inline float chain(float4 a, float4 b, float sum) {
  sum = __fmaf_rn(a.x, b.x, sum);
  sum = __fmaf_rn(a.y, b.y, sum);
  sum = __fmaf_rn(a.z, b.z, sum);
  return __fmaf_rn(a.w, b.w, sum);
}

// store(i, j, a[i] . b[j]) for i < kRows, 0 where there is no row i, and j < n. a: [rows, dim],
// b: [n, dim] contiguous. stage: 16-byte aligned. What was stored is seen by all threads.
template <int kRows, class Store>
__device__ void multiply_rows(const float* a, int rows, const float* b, int n, int dim,
                              float* stage, Store store) {
  using Place = WarpPlace<kRows>;
  constexpr int kOfThread = kColumns / Place::kSides / kLanes;  // columns
  const Place at;
  float* b_stage = stage;
  float* a_stage = stage + kColumns * kPitch;
  const float* a_of_warp = a_stage + at.row * kPitch;
  const int column_of_thread = at.side * kOfThread * kLanes + at.lane;
  for (int first = 0; first < n; first += kColumns) {
    const bool has_columns = first + at.side * kOfThread * kLanes < n;
    float sums[kRowsOfWarp][kOfThread] = {};
    for (int d0 = 0; d0 < dim; d0 += kDepth) {
      const int depth = min(kDepth, dim - d0);
      stage_rows<kColumns>(b + static_cast<int64_t>(first) * dim + d0, n - first, dim, depth,
                           b_stage);
      stage_rows<kRows>(a + d0, rows, dim, depth, a_stage);
      __syncthreads();
      if (has_columns && depth == kDepth) {
#pragma unroll
        for (int d = 0; d < kDepth; d += 4) {
          float4 x[kRowsOfWarp];
#pragma unroll
          for (int i = 0; i < kRowsOfWarp; ++i) {
            x[i] = *reinterpret_cast<const float4*>(a_of_warp + i * kPitch + d);
          }
#pragma unroll
          for (int c = 0; c < kOfThread; ++c) {
            const float4 y = *reinterpret_cast<const float4*>(
                b_stage + (column_of_thread + c * kLanes) * kPitch + d);
#pragma unroll
            for (int i = 0; i < kRowsOfWarp; ++i) sums[i][c] = chain(x[i], y, sums[i][c]);
          }
        }
      } else if (has_columns) {  // no zeros are added: they would turn -0 into 0
        for (int d = 0; d < depth; ++d) {
#pragma unroll
          for (int c = 0; c < kOfThread; ++c) {
            const float y = b_stage[(column_of_thread + c * kLanes) * kPitch + d];
#pragma unroll
            for (int i = 0; i < kRowsOfWarp; ++i) {
              sums[i][c] = __fmaf_rn(a_of_warp[i * kPitch + d], y, sums[i][c]);
            }
          }
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int c = 0; c < kOfThread; ++c) {
      const int column = first + column_of_thread + c * kLanes;
      if (column >= n) continue;
#pragma unroll
      for (int i = 0; i < kRowsOfWarp; ++i) store(at.row + i, column, sums[i][c]);
    }
  }
  __syncthreads();
}

// store(i, d, sum over j of weights[i][j] * b[j][d]) for i < kRows and d < dim. weights: rows of
// shared memory, `pitch` apart, 16-byte aligned; b: [n, dim] contiguous.
template <int kRows, class Store>
__device__ void combine_rows(const float* weights, int64_t pitch, const float* b, int n, int dim,
                             Store store) {
  using Place = WarpPlace<kRows>;
  constexpr int kStep = Place::kSides * kLanes;
  const Place at;
  const float* w = weights + at.row * pitch;
  for (int first = at.side * kLanes; first < dim; first += 2 * kStep) {
    const int d[2] = {first + at.lane, first + at.lane + kStep};
    const bool exists[2] = {d[0] < dim, d[1] < dim};
    float sums[kRowsOfWarp][2] = {};
    int j = 0;
    for (; j + 4 <= n; j += 4) {
      float4 y[2];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const float* column = b + static_cast<int64_t>(j) * dim + d[c];
        y[c] = exists[c] ? make_float4(column[0], column[dim], column[2 * dim], column[3 * dim])
                         : make_float4(0, 0, 0, 0);
      }
#pragma unroll
      for (int i = 0; i < kRowsOfWarp; ++i) {
        const float4 x = *reinterpret_cast<const float4*>(w + i * pitch + j);
#pragma unroll
        for (int c = 0; c < 2; ++c) sums[i][c] = chain(x, y[c], sums[i][c]);
      }
    }
    for (; j < n; ++j) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const float y = exists[c] ? b[static_cast<int64_t>(j) * dim + d[c]] : 0.0f;
#pragma unroll
        for (int i = 0; i < kRowsOfWarp; ++i) {
          sums[i][c] = __fmaf_rn(w[i * pitch + j], y, sums[i][c]);
        }
      }
    }
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      if (!exists[c]) continue;
#pragma unroll
      for (int i = 0; i < kRowsOfWarp; ++i) store(at.row + i, d[c], sums[i][c]);
    }
  }
}

}  // namespace sprocket::kernels::cuda::row_tile

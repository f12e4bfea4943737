// The loops of tile_ops.h over a vector type `M::V` of 16 floats; included once per instruction
// set.
#pragma once

#include "kernels/isa.h"
#include "kernels/tile_ops.h"

namespace sprocket::kernels {

// 2^f on [-1/2, 1/2], minimax, relative error 2e-9; with the roundings of fp32 0.7 ulp.
inline constexpr float kExp2[7] = {1.0f,           0.69314718246f, 0.24022646248f, 0.05550328642f,
                                   0.00961848907f, 0.00133999309f, 0.000153458124f};

inline constexpr float kLazyGrowth = 8;

template <class M>
SPROCKET_INLINE typename M::V exp2_polynomial(typename M::V f) {
  typename M::V p = M::broadcast(kExp2[6]);
#pragma GCC unroll 6
  for (int i = 5; i >= 0; --i) p = M::multiply_add(p, f, M::broadcast(kExp2[i]));
  return p;
}

template <class M, int kGroups>
SPROCKET_INLINE void softmax_columns(const SoftmaxTile& tile) {
  using V = typename M::V;
  constexpr int kColumns = 16 * kGroups;
  const V factor = M::broadcast(tile.factor);
  const V bias = M::broadcast(tile.bias);
  V largest[kGroups];
#pragma GCC unroll 4
  for (int g = 0; g < kGroups; ++g) largest[g] = M::broadcast(kFarBelow);
  for (int row = 0; row < tile.rows; ++row) {
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      const V x = M::load(tile.scores + row * kColumns + 16 * g) * factor;
      largest[g] = M::max(x, largest[g]);
    }
  }
  V maximum[kGroups], sum[kGroups];
  bool grows = false;
#pragma GCC unroll 4
  for (int g = 0; g < kGroups; ++g) {
    maximum[g] = M::load(tile.maximum + 16 * g);
    sum[g] = M::load(tile.sum + 16 * g);
    largest[g] = largest[g] + bias;
    grows |= M::any_greater(largest[g], maximum[g] + kLazyGrowth);
  }
  if (grows) {
    V shrink[kGroups];
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      const V raised = M::max(largest[g], maximum[g]);
      shrink[g] = M::exp2(maximum[g] - raised);
      sum[g] = sum[g] * shrink[g];
      maximum[g] = raised;
      M::store(tile.maximum + 16 * g, raised);
    }
    for (int d = 0; d < tile.dim; ++d) {
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) {
        float* at = tile.accumulator + d * kColumns + 16 * g;
        M::store(at, M::load(at) * shrink[g]);
      }
    }
  }
  V shift[kGroups];
#pragma GCC unroll 4
  for (int g = 0; g < kGroups; ++g) shift[g] = bias - maximum[g];
  if constexpr (M::kBf16) {
    for (int row = 0; row < tile.rows; row += 2) {
      const bool both = row + 1 < tile.rows;
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) {
        const float* at = tile.scores + row * kColumns + 16 * g;
        const V even = M::exp2(M::multiply_add(M::load(at), factor, shift[g]));
        V odd = M::broadcast(0);
        if (both) odd = M::exp2(M::multiply_add(M::load(at + kColumns), factor, shift[g]));
        sum[g] = sum[g] + even + odd;
        M::store_pairs(tile.pairs + row * kColumns + 32 * g, even, odd);
      }
    }
  } else {
    for (int row = 0; row < tile.rows; ++row) {
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) {
        float* at = tile.scores + row * kColumns + 16 * g;
        const V p = M::exp2(M::multiply_add(M::load(at), factor, shift[g]));
        sum[g] = sum[g] + p;
        M::store(at, p);
      }
    }
  }
#pragma GCC unroll 4
  for (int g = 0; g < kGroups; ++g) M::store(tile.sum + 16 * g, sum[g]);
}

template <class M>
struct GradientColumn {
  typename M::V factor, scale, shift, rest, delta;
};

template <class M>
struct GradientLanes {
  typename M::V p, ds;
};

// The exponent's shift, bias - lse, carries the part that rounding takes from it: an error there is
// an error of the row's every weight. The sum's own (two-sum) is exact.
template <class M>
SPROCKET_INLINE GradientColumn<M> gradient_column(const GradientTile& tile, int column) {
  using V = typename M::V;
  const V bias = M::broadcast(tile.bias);
  const V lse = M::load(tile.lse + column);
  const V shift = bias - lse;
  const V taken = shift - bias;
  const V rest = (bias - (shift - taken)) - (lse + taken) - M::load(tile.lse_rest + column);
  return {M::broadcast(tile.factor), M::broadcast(tile.scale), shift, rest,
          M::load(tile.delta + column)};
}

template <class M>
SPROCKET_INLINE GradientLanes<M> gradient_lanes(const GradientTile& tile, int at,
                                                const GradientColumn<M>& column) {
  const auto x = M::multiply_add(M::load(tile.scores + at), column.factor, column.shift);
  const auto p = M::exp2(x + column.rest);
  return {p, column.scale * p * (M::load(tile.dscores + at) - column.delta)};
}

template <class M, int kGroups>
SPROCKET_INLINE void gradient_columns(const GradientTile& tile) {
  constexpr int kColumns = 16 * kGroups;
  GradientColumn<M> columns[kGroups];
#pragma GCC unroll 4
  for (int g = 0; g < kGroups; ++g) columns[g] = gradient_column<M>(tile, 16 * g);
  if constexpr (M::kBf16) {
    for (int row = 0; row < tile.rows; row += 2) {
      const bool both = row + 1 < tile.rows;
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) {
        const int at = row * kColumns + 16 * g;
        const auto even = gradient_lanes<M>(tile, at, columns[g]);
        GradientLanes<M> odd = {M::broadcast(0), M::broadcast(0)};
        M::store_half(tile.p + at, even.p);
        M::store_half(tile.ds + at, even.ds);
        if (both) {
          odd = gradient_lanes<M>(tile, at + kColumns, columns[g]);
          M::store_half(tile.p + at + kColumns, odd.p);
          M::store_half(tile.ds + at + kColumns, odd.ds);
        }
        M::store_pairs(tile.ds_pairs + row * kColumns + 32 * g, even.ds, odd.ds);
      }
    }
  } else {
    for (int row = 0; row < tile.rows; ++row) {
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) {
        const int at = row * kColumns + 16 * g;
        const auto lanes = gradient_lanes<M>(tile, at, columns[g]);
        M::store(tile.scores + at, lanes.p);
        M::store(tile.dscores + at, lanes.ds);
      }
    }
  }
}

template <class M>
struct SoftmaxKernel {
  SPROCKET_INLINE static void run(const SoftmaxTile& tile) {
    switch (tile.columns / 16) {
      case 1:
        return softmax_columns<M, 1>(tile);
      case 2:
        return softmax_columns<M, 2>(tile);
      case 3:
        return softmax_columns<M, 3>(tile);
      case 4:
        return softmax_columns<M, 4>(tile);
    }
  }
};

template <class M>
struct GradientKernel {
  SPROCKET_INLINE static void run(const GradientTile& tile) {
    switch (tile.columns / 16) {
      case 1:
        return gradient_columns<M, 1>(tile);
      case 2:
        return gradient_columns<M, 2>(tile);
      case 3:
        return gradient_columns<M, 3>(tile);
      case 4:
        return gradient_columns<M, 4>(tile);
    }
  }
};

}  // namespace sprocket::kernels

// The parts of segment attention between the products, on one tile of keys x queries.
//
// Tiles are stored keys-major, [rows][columns] with one column per query: maxima and sums of the
// softmax then run down the columns, 16 queries to a vector, without any horizontal step. Exponents
// are in base 2; columns is a multiple of 16, at most 64.
#pragma once

#include "base/bfloat16.h"

namespace sprocket::kernels {

// Stands for -inf where inf - inf would be a NaN: 2^kFarBelow is 0.
inline constexpr float kFarBelow = -1e30f;
inline constexpr int kMaxColumns = 64;

// One step of the online softmax. With x = scores * factor + bias:
//   raises maximum where x exceeds it by more than 8 (and scales sum and accumulator down),
//   p = 2^(x - maximum), sum += column sums of p.
// maximum is therefore a reference point, at most 8 below the true maximum; p stays below 2^8.
// p goes to `scores`, or, where `pairs` is not null, rounded to bf16, rows 2i and 2i+1
// interleaved ([rows/2][columns][2], a missing last row is 0).
struct SoftmaxTile {
  float* scores;  // [rows][columns]
  int rows;
  int columns;
  float factor;        // scale * log2(e)
  float bias;          // * log2(e)
  float* maximum;      // [columns]
  float* sum;          // [columns]
  float* accumulator;  // [dim][columns]
  int dim;
  BFloat16* pairs;
};

// p = 2^(scores * factor + bias - lse), ds = scale * p * (dscores - delta).
// p and ds go to `scores` and `dscores`, or, where `p` is not null, rounded to bf16, to p and ds
// [rows][columns] and ds_pairs, interleaved as above.
struct GradientTile {
  float* scores;
  float* dscores;
  int rows;
  int columns;
  float factor;
  float bias;
  float scale;
  const float* lse;       // * log2(e); -kFarBelow makes p 0
  const float* lse_rest;  // what rounding took from lse
  const float* delta;
  BFloat16* p;
  BFloat16* ds;
  BFloat16* ds_pairs;
};

struct TileOps {
  void (*softmax)(const SoftmaxTile&);
  void (*gradient)(const GradientTile&);
};

// For current_isa(). bf16 outputs only where has_bf16_products().
TileOps tile_ops();

// Whether the processor multiplies bf16 pairs (AVX512-BF16) and current_isa() allows it.
bool has_bf16_products();

namespace internal {
TileOps avx512_tile_ops();
}  // namespace internal

}  // namespace sprocket::kernels

// What self-attention computes: a method and its options. A property of the model, the same on any
// number of ranks. docs/attention.md and docs/attention/ describe the methods.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "base/decimal.h"
#include "kernels/import_budget.h"
#include "kernels/level_selection.h"
#include "kernels/mass_selection.h"
#include "kernels/prefix_rule.h"
#include "kernels/query_pruning.h"
#include "kernels/sampled_scores.h"
#include "kernels/threshold_selection.h"

namespace sprocket::parallel {

enum class MethodKind { kDense, kVsa, kBsa, kPsa, kAsa, kSlidingTile };
enum class CoarseBranch { kGated, kAdd, kNone };

// What a domain may import (kernels/import_budget.h); matters with several domains. For methods
// that score blocks: all but dense and sliding tile.
struct BudgetSpec {
  kernels::BudgetForm form = kernels::BudgetForm::kFlat;
  // Of this step. kTree: of every level from the top cut, or one for all of them.
  std::vector<Decimal> max_coverage{Decimal::ratio(1, 0)};
  int head_group = 0;  // 0: all heads

  bool limits() const {
    return std::any_of(max_coverage.begin(), max_coverage.end(),
                       [](const Decimal& share) { return share < Decimal::ratio(1, 0); });
  }
  bool operator==(const BudgetSpec&) const = default;
};

struct VsaSpec {
  Decimal sparsity;  // of this step; 0 selects everything
  CoarseBranch coarse = CoarseBranch::kGated;
  bool fine_gate = false;
  int query_parts = 1, key_parts = 1;  // 1 x 1: the score of the block means
  kernels::PrefixRule prefix = kernels::PrefixRule::kExempt;
};

struct BsaSpec {
  kernels::PruningSpec pruning;
  kernels::ThresholdSpec threshold;  // its places are set by the call
};

// Which tokens of a block are sampled: how many (0: all), by which seed, at which step.
struct SamplingSpec {
  int per_block = 0;
  uint64_t seed = 0;
  int64_t step = 0;
};

inline const std::vector<int> kPsaWidths = {1, 2, 4, 8};  // of its pyramid (kernels/pyramid.h)

struct PsaSpec {
  SamplingSpec sampling;
  kernels::SampledScore score = kernels::SampledScore::kSoftmax;
  kernels::LevelSelection levels;
  std::vector<double> similarity;  // of widths 2, 4 and 8; empty: no cap
};

struct AsaSpec {
  SamplingSpec sampling;
  kernels::SampledScore score = kernels::SampledScore::kSoftmax;
  kernels::MassSelection selection;
  int global_width = 0;  // tokens of a global token; 0: none
  bool exclude_selected = false;
};

struct SlidingTileSpec {
  std::array<int, 3> window{3, 3, 3};  // cubes (t, h, w)
};

struct AttentionSpec {
  MethodKind method = MethodKind::kDense;
  VsaSpec vsa;
  BsaSpec bsa;
  PsaSpec psa;
  AsaSpec asa;
  SlidingTileSpec sliding_tile;
  BudgetSpec budget;

  bool coarse_gated() const {
    return method == MethodKind::kVsa && vsa.coarse == CoarseBranch::kGated;
  }
  bool fine_gated() const { return method == MethodKind::kVsa && vsa.fine_gate; }
  // Of the pyramid of key rows that tables refer to; {1}: the tokens alone.
  std::vector<int> widths() const {
    return method == MethodKind::kPsa ? kPsaWidths : std::vector<int>{1};
  }
};

}  // namespace sprocket::parallel

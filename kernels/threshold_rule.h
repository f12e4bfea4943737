// What hosts and devices share of selections by a threshold of each row. C++17; device code calls
// constexpr functions.
#pragma once

#include <cstdint>

#include "kernels/isa.h"

namespace sprocket::kernels {

enum class ThresholdRule {
  // Keep j if S[j] >= mean(S) + std(S) * PhiInv(1 - k / N): the k best of normally distributed
  // scores. std is the population's; k = selected_count(sparsity, N); k = N keeps everything.
  // Statistics are taken of S[j] - S[0] in double, in one fixed order, so that equal scores have
  // no spread and are all kept. With a NaN or infinite score there is no threshold: the best
  // min_blocks_value are kept.
  kValue,
  // The smallest set of top blocks whose P = softmax(S) adds up to tau: exp(S - max) in the
  // precision of the scores, sums in double in one fixed order, compared with tau times the sum
  // of the row: with m equal scores and nothing else, ceil(tau * m). tau >= 1 keeps everything.
  kMass,
};

// A rule for rows of so many scores.
struct ThresholdBounds {
  ThresholdRule rule = ThresholdRule::kMass;
  int least = 1;           // best blocks that are kept in any case
  bool keeps_all = false;  // whatever the scores
  double quantile = 0;     // kValue
  double tau = 0.9;        // kMass
};

// Scores by their distance from the largest one, so that few of them need sorting.
constexpr int kMassBuckets = 128;  // and one behind them for what lies further down, or is NaN

// Buckets in a distance of 1. Scores further down than all of them have together less mass than may
// be left out: ln(blocks / ((1 - tau) * total)), of which a bound from the exponent will do and is
// the same everywhere.
constexpr double mass_buckets_per_unit(int blocks, double tau, double total) {
  constexpr double kLn2 = 0.693147180559945309;
  const double ratio = blocks / ((1 - tau) * total);
  const auto exponent = static_cast<int64_t>(__builtin_bit_cast(uint64_t, ratio) >> 52) - 1022;
  const double distance = static_cast<double>(exponent) * kLn2;
  return kMassBuckets / (distance > 1 ? distance : 1.0);
}

// Never descending where scores descend; kMassBuckets for NaN.
template <class A>
SPROCKET_INLINE constexpr int32_t mass_bucket(A score, A largest, A buckets_per_unit) {
  const A distance = (largest - score) * buckets_per_unit;
  return static_cast<int32_t>(distance < kMassBuckets ? distance : A{kMassBuckets});
}

}  // namespace sprocket::kernels

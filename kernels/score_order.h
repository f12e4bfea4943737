// What selections by cumulated mass share: the order in which they visit a row of block scores, and
// thresholds on the mass.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "base/decimal.h"
#include "kernels/mass_share.h"

namespace sprocket::kernels {

// A sorter that keeps its buffers between rows; one for each thread. A is float or double.
template <class A>
class ScoreOrder {
 public:
  // The ids 0 .. scores.size()-1 by descending score; ties go to the smaller id (+0 and -0 tie),
  // NaN comes last. Valid until the next call.
  std::span<const int32_t> sort(std::span<const A> scores);

 private:
  using Bits = std::conditional_t<std::is_same_v<A, float>, uint32_t, uint64_t>;
  struct Entry {
    Bits key;  // ascending where scores descend
    int32_t id;
  };
  std::vector<Entry> entries_, sorted_;
  std::vector<int32_t> ids_;
};

// The mass of a score: itself, and 0 for NaN.
template <class A>
double mass_of(A score) {
  return score == score ? static_cast<double>(score) : 0.0;
}

// A share of a row's mass, for ScaledShare::of. Cumulated masses land exactly on a threshold again
// and again (equal scores, saturated ones), so the product is rounded once: .7 of 90 is 63.
ScaledShare share_of(const Decimal& share);

}  // namespace sprocket::kernels

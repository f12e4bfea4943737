#include "runtime/metrics/imbalance.h"

#include <algorithm>
#include <numeric>

namespace sprocket::runtime {

double imbalance(std::span<const double> work) {
  const double sum = std::accumulate(work.begin(), work.end(), 0.0);
  return sum == 0 ? 1 : std::ranges::max(work) * static_cast<double>(work.size()) / sum;
}

}  // namespace sprocket::runtime

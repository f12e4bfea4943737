#include "runtime/metrics/head_shares.h"

#include "base/error.h"

namespace sprocket::runtime {

void append_shares(const LayerHeadShares& own, int first_head, int heads,
                   std::vector<double>& sums) {
  for (const std::vector<kernels::Share>& layer : own) {
    SPROCKET_CHECK(first_head >= 0 && first_head + std::ssize(layer) <= heads,
                   "heads {} to {} of {}", first_head, first_head + std::ssize(layer), heads);
    const size_t begin = sums.size();
    sums.resize(begin + 2 * static_cast<size_t>(heads), 0);
    for (size_t h = 0; h < layer.size(); ++h) {
      sums[begin + 2 * (first_head + h)] = layer[h].part;
      sums[begin + 2 * (first_head + h) + 1] = layer[h].whole;
    }
  }
}

std::vector<std::vector<double>> take_shares(int layers, int heads, std::span<const double>& sums) {
  std::vector<std::vector<double>> shares(layers);
  for (std::vector<double>& layer : shares) {
    for (int h = 0; h < heads; ++h) {
      layer.push_back(kernels::Share{sums[0], sums[1]}.value());
      sums = sums.subspan(2);
    }
  }
  return shares;
}

}  // namespace sprocket::runtime

#include "runtime/metrics/head_shares.h"

namespace sprocket::runtime {

void append_shares(const LayerHeadShares& own, std::vector<double>& sums) {
  for (const std::vector<kernels::Share>& layer : own) {
    for (const kernels::Share& share : layer) {
      sums.push_back(share.part);
      sums.push_back(share.whole);
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

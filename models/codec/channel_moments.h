// Mean and standard deviation per latent channel, and normalising with them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sprocket::codec {

struct ChannelStatistics {
  std::vector<float> mean;
  std::vector<float> std;  // population; 1 where a channel never varies
};

// Collects latents of shape [channels, …]. Sums are in double, latents are added in the order of
// the calls, so that equal calls give equal bits.
class ChannelMoments {
 public:
  explicit ChannelMoments(int channels) : sum_(channels), square_(channels) {}
  void add(std::span<const float> latent);
  ChannelStatistics statistics() const;

 private:
  std::vector<double> sum_, square_;
  int64_t count_ = 0;  // values per channel
};

// In place on [channels, …]: (x - mean) / std, and back.
void normalise(std::span<float> latent, const ChannelStatistics& statistics);
void denormalise(std::span<float> latent, const ChannelStatistics& statistics);

}  // namespace sprocket::codec

#include "models/codec/channel_moments.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace sprocket::codec {
namespace {

// Calls f(channel, that channel's values).
template <class T, class F>
void for_channels(std::span<T> latent, size_t channels, F f) {
  SPROCKET_CHECK(channels > 0 && latent.size() % channels == 0, "{} values of {} channels",
                 latent.size(), channels);
  const size_t size = latent.size() / channels;
  for (size_t c = 0; c < channels; ++c) f(c, latent.subspan(c * size, size));
}

}  // namespace

void ChannelMoments::add(std::span<const float> latent) {
  for_channels(latent, sum_.size(), [&](size_t c, std::span<const float> values) {
    for (const double value : values) {
      sum_[c] += value;
      square_[c] += value * value;
    }
  });
  count_ += static_cast<int64_t>(latent.size() / sum_.size());
}

ChannelStatistics ChannelMoments::statistics() const {
  ChannelStatistics result;
  for (size_t c = 0; c < sum_.size(); ++c) {
    const double count = static_cast<double>(std::max<int64_t>(count_, 1));
    const double mean = sum_[c] / count;
    const double variance = square_[c] / count - mean * mean;
    // Rounding leaves about 1e-15 of the squares in a channel that never varies.
    const bool constant = variance <= 1e-12 * square_[c] / count;
    result.mean.push_back(static_cast<float>(mean));
    result.std.push_back(constant ? 1.0f : static_cast<float>(std::sqrt(variance)));
  }
  return result;
}

void normalise(std::span<float> latent, const ChannelStatistics& statistics) {
  for_channels(latent, statistics.mean.size(), [&](size_t c, std::span<float> values) {
    for (float& value : values) value = (value - statistics.mean[c]) / statistics.std[c];
  });
}

void denormalise(std::span<float> latent, const ChannelStatistics& statistics) {
  for_channels(latent, statistics.mean.size(), [&](size_t c, std::span<float> values) {
    for (float& value : values) value = value * statistics.std[c] + statistics.mean[c];
  });
}

}  // namespace sprocket::codec

#include "runtime/media/video.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace sprocket::media {

std::vector<float> to_floats(const Video& video) {
  const size_t plane = static_cast<size_t>(video.frames) * video.height * video.width;
  SPROCKET_CHECK_EQ(video.rgb.size(), plane * 3);
  std::vector<float> values(plane * 3);
  for (size_t i = 0; i < plane; ++i) {
    for (size_t c = 0; c < 3; ++c) {
      values[c * plane + i] = static_cast<float>(video.rgb[i * 3 + c]) / 127.5f - 1.0f;
    }
  }
  return values;
}

Video from_floats(std::span<const float> values, int64_t frames, int height, int width,
                  double fps) {
  Video video{frames, width, height, fps, std::vector<uint8_t>(values.size())};
  const size_t plane = values.size() / 3;
  SPROCKET_CHECK_EQ(plane * 3, static_cast<size_t>(frames) * height * width * 3);
  for (size_t i = 0; i < plane; ++i) {
    for (size_t c = 0; c < 3; ++c) {
      const float scaled = (values[c * plane + i] + 1.0f) * 127.5f;
      video.rgb[i * 3 + c] = static_cast<uint8_t>(std::lround(std::clamp(scaled, 0.0f, 255.0f)));
    }
  }
  return video;
}

double psnr(const Video& a, const Video& b) {
  SPROCKET_CHECK(a.frames == b.frames && a.width == b.width && a.height == b.height,
                 "two videos of {}x{}x{} and {}x{}x{}", a.frames, a.height, a.width, b.frames,
                 b.height, b.width);
  double sum = 0;
  for (size_t i = 0; i < a.rgb.size(); ++i) {
    const double difference = static_cast<double>(a.rgb[i]) - b.rgb[i];
    sum += difference * difference;
  }
  if (sum == 0) return std::numeric_limits<double>::infinity();
  return 10 * std::log10(255.0 * 255.0 * static_cast<double>(a.rgb.size()) / sum);
}

}  // namespace sprocket::media

// A closed-form video: a bright disc that moves over a slowly changing gradient.
#pragma once

#include <cmath>

#include "runtime/media/video.h"

namespace sprocket::testing {

inline media::Video synthetic_video(int64_t frames, int width, int height, double fps = 8,
                                    double phase = 0) {
  media::Video video{frames, width, height, fps, {}};
  video.rgb.reserve(frames * video.frame_bytes());
  for (int64_t t = 0; t < frames; ++t) {
    const double centre_x =
        width * (0.3 + 0.4 * static_cast<double>(t) / static_cast<double>(frames));
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const double distance =
            std::hypot(x - centre_x, y - height * (0.5 + 0.2 * std::sin(phase)));
        const double disc = 1 / (1 + std::exp((distance - height * 0.2) / 2));
        const double shade = 0.5 + 0.4 * std::sin(phase + 0.05 * x + 0.1 * static_cast<double>(t));
        video.rgb.push_back(static_cast<uint8_t>(255 * (0.2 + 0.6 * disc * shade)));
        video.rgb.push_back(static_cast<uint8_t>(255 * (0.8 * y / height)));
        video.rgb.push_back(static_cast<uint8_t>(255 * (0.3 + 0.5 * x / width)));
      }
    }
  }
  return video;
}

}  // namespace sprocket::testing

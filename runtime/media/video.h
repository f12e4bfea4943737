// Decoded video in memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sprocket::media {

// One picture, 8-bit RGB, rows top to bottom without padding: [height, width, 3].
struct Image {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> rgb;
};

// Pictures of one size: [frames, height, width, 3].
struct Video {
  int64_t frames = 0;
  int width = 0;
  int height = 0;
  double fps = 0;
  std::vector<uint8_t> rgb;

  size_t frame_bytes() const { return static_cast<size_t>(width) * height * 3; }
  std::span<const uint8_t> frame(int64_t index) const {
    return std::span(rgb).subspan(index * frame_bytes(), frame_bytes());
  }
};

// Planar float video [3, frames, height, width]: v / 127.5 - 1, in [-1, 1].
std::vector<float> to_floats(const Video& video);
// The inverse: clamped, rounded to nearest. values.size() == 3 * frames * height * width.
Video from_floats(std::span<const float> values, int64_t frames, int height, int width, double fps);

// 10 log10(255^2 / mean squared difference) over all samples of two videos of one size, in dB;
// infinity for equal ones.
double psnr(const Video& a, const Video& b);

}  // namespace sprocket::media

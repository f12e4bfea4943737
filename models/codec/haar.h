// The wavelet latent codec: no weights, linear, orthonormal, and invertible when nothing is
// dropped.
//
// Grid. Like the Wan VAE the codec has stride (4, 8, 8) and maps F frames to T = ceil((F-1)/4) + 1
// latent frames, so that token grids agree: the first frame alone fills latent frame 0 (it is
// repeated to a group of four, and decoding averages the four); latent frame g > 0 holds frames
// 4g-3 .. 4g. An incomplete last group is filled up by repeating the last frame.
//
// Transform. Each cell of 4 x 8 x 8 pixels is transformed on its own:
//   colour   orthonormal opponent axes (R+G+B)/sqrt3, (R-B)/sqrt2, (R-2G+B)/sqrt6
//   t, h, w  full multi-level orthonormal Haar along each axis: 2, 3 and 3 levels
// which gives 3*4*8*8 = 768 coefficients with the sum of squares of the 768 samples.
//
// Order. Coefficients are kept by ascending cost, ties by index (colour, t, h, w):
//   cost = 3 (level_h + level_w) + {0, 5, 8}[level_t] + {0, 7, 8}[colour]
// where level is 0 for the mean, 1 for the coarsest detail, and so on. The weights were fitted to
// the mean energy per coefficient of six natural and generated clips; with 16 to 48 channels the
// reconstruction is within 0.1 dB of the best order that is the same for all clips.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace sprocket::codec {

inline constexpr int kStrideT = 4;
inline constexpr int kStrideH = 8;
inline constexpr int kStrideW = 8;
inline constexpr int kHaarCoefficients = 768;
// Stored with data; changes whenever transform, colour axes or order do.
inline constexpr int kHaarVersion = 1;

// T for a number of frames >= 1, and the largest number of frames that T latent frames decode to.
int64_t latent_frames(int64_t frames);
int64_t video_frames(int64_t latent_frames);

struct HaarIndex {
  int colour;  // 0..2
  int t;       // 0..3; 0 the mean, 1 coarse detail, 2..3 fine detail
  int h;       // 0..7; 0 the mean, 1, 2..3, 4..7 ever finer detail
  int w;
};

// Which coefficient each channel is.
const std::array<HaarIndex, kHaarCoefficients>& haar_order();

class HaarCodec {
 public:
  // Keeps the first `channels` coefficients of haar_order(). 1..768, else ConfigError.
  explicit HaarCodec(int channels);
  int channels() const { return channels_; }

  // video: planar RGB [3, frames, height, width] in [-1, 1]; height and width multiples of 8.
  // Returns [channels, T, height/8, width/8].
  std::vector<float> encode(std::span<const float> video, int64_t frames, int64_t height,
                            int64_t width) const;

  // latent: [channels, T, h, w]. Returns planar RGB [3, frames, 8h, 8w], clamped to [-1, 1] when
  // asked; frames in video_frames(T)-3 .. video_frames(T) (for T = 1: exactly 1).
  std::vector<float> decode(std::span<const float> latent, int64_t latent_frames, int64_t h,
                            int64_t w, int64_t frames, bool clamp = true) const;

 private:
  int channels_;
};

}  // namespace sprocket::codec

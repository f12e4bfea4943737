#include "models/codec/haar.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"

namespace sprocket::codec {
namespace {

constexpr int kCellT = kStrideT, kCellH = kStrideH, kCellW = kStrideW;
constexpr int kPlane = kCellT * kCellH * kCellW;
using Cell = std::array<float, kHaarCoefficients>;  // [colour, t, h, w]

constexpr float kHalfRoot = 0.70710678118654752f;

// In place along one axis of N elements `stride` apart: [mean, coarse detail, …, finest detail].
template <int N>
void forward_axis(float* x, int stride) {
  float low[N];
  for (int i = 0; i < N; ++i) low[i] = x[i * stride];
  for (int half = N / 2; half >= 1; half /= 2) {
    for (int i = 0; i < half; ++i) {
      const float a = low[2 * i], b = low[2 * i + 1];
      x[(half + i) * stride] = (a - b) * kHalfRoot;
      low[i] = (a + b) * kHalfRoot;
    }
  }
  x[0] = low[0];
}

template <int N>
void inverse_axis(float* x, int stride) {
  float low[N];
  low[0] = x[0];
  for (int half = 1; half < N; half *= 2) {
    for (int i = half - 1; i >= 0; --i) {
      const float a = low[i], d = x[(half + i) * stride];
      low[2 * i] = (a + d) * kHalfRoot;
      low[2 * i + 1] = (a - d) * kHalfRoot;
    }
  }
  for (int i = 0; i < N; ++i) x[i * stride] = low[i];
}

const float kRoot3 = std::sqrt(3.0f), kRoot2 = std::sqrt(2.0f), kRoot6 = std::sqrt(6.0f);

void forward_cell(Cell* cell) {
  float* x = cell->data();
  for (int i = 0; i < kPlane; ++i) {
    const float r = x[i], g = x[kPlane + i], b = x[2 * kPlane + i];
    x[i] = (r + g + b) / kRoot3;
    x[kPlane + i] = (r - b) / kRoot2;
    x[2 * kPlane + i] = (r - 2 * g + b) / kRoot6;
  }
  for (int row = 0; row < kHaarCoefficients; row += kCellW) forward_axis<kCellW>(x + row, 1);
  for (int face = 0; face < kHaarCoefficients; face += kCellH * kCellW) {
    for (int w = 0; w < kCellW; ++w) forward_axis<kCellH>(x + face + w, kCellW);
  }
  for (int colour = 0; colour < 3; ++colour) {
    for (int i = 0; i < kCellH * kCellW; ++i) {
      forward_axis<kCellT>(x + colour * kPlane + i, kCellH * kCellW);
    }
  }
}

void inverse_cell(Cell* cell) {
  float* x = cell->data();
  for (int colour = 0; colour < 3; ++colour) {
    for (int i = 0; i < kCellH * kCellW; ++i) {
      inverse_axis<kCellT>(x + colour * kPlane + i, kCellH * kCellW);
    }
  }
  for (int face = 0; face < kHaarCoefficients; face += kCellH * kCellW) {
    for (int w = 0; w < kCellW; ++w) inverse_axis<kCellH>(x + face + w, kCellW);
  }
  for (int row = 0; row < kHaarCoefficients; row += kCellW) inverse_axis<kCellW>(x + row, 1);
  for (int i = 0; i < kPlane; ++i) {
    const float y = x[i] / kRoot3, p = x[kPlane + i] / kRoot2, q = x[2 * kPlane + i] / kRoot6;
    x[i] = y + p + q;
    x[kPlane + i] = y - 2 * q;
    x[2 * kPlane + i] = y - p + q;
  }
}

int level_of(int index) { return std::bit_width(static_cast<unsigned>(index)); }

std::array<HaarIndex, kHaarCoefficients> make_order() {
  constexpr int kTimeCost[] = {0, 5, 8}, kColourCost[] = {0, 7, 8};
  const auto cost = [&](const HaarIndex& index) {
    return 3 * (level_of(index.h) + level_of(index.w)) + kTimeCost[level_of(index.t)] +
           kColourCost[index.colour];
  };
  std::array<HaarIndex, kHaarCoefficients> order;
  for (int i = 0; i < kHaarCoefficients; ++i) {
    order[i] = {i / kPlane, i / (kCellH * kCellW) % kCellT, i / kCellW % kCellH, i % kCellW};
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](const HaarIndex& a, const HaarIndex& b) { return cost(a) < cost(b); });
  return order;
}

// The position in a Cell of each channel.
std::vector<int> positions(int channels) {
  std::vector<int> result;
  for (int c = 0; c < channels; ++c) {
    const HaarIndex& index = haar_order()[c];
    result.push_back(((index.colour * kCellT + index.t) * kCellH + index.h) * kCellW + index.w);
  }
  return result;
}

}  // namespace

int64_t latent_frames(int64_t frames) { return (frames + kStrideT - 2) / kStrideT + 1; }
int64_t video_frames(int64_t latent_frames) { return kStrideT * (latent_frames - 1) + 1; }

const std::array<HaarIndex, kHaarCoefficients>& haar_order() {
  static const auto order = make_order();
  return order;
}

HaarCodec::HaarCodec(int channels) : channels_(channels) {
  if (channels < 1 || channels > kHaarCoefficients) {
    throw ConfigError(
        fmt::format("haar codec: channels: found {}, legal: 1..{}", channels, kHaarCoefficients));
  }
}

std::vector<float> HaarCodec::encode(std::span<const float> video, int64_t frames, int64_t height,
                                     int64_t width) const {
  SPROCKET_CHECK(
      frames > 0 && height > 0 && width > 0 && height % kStrideH == 0 && width % kStrideW == 0,
      "{} frames of {}x{}", frames, height, width);
  SPROCKET_CHECK_EQ(static_cast<int64_t>(video.size()), 3 * frames * height * width);
  const int64_t groups = latent_frames(frames), h = height / kStrideH, w = width / kStrideW;
  std::vector<float> latent(channels_ * groups * h * w);
  const std::vector<int> position = positions(channels_);
  Cell cell;
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t i = 0; i < h; ++i) {
      for (int64_t j = 0; j < w; ++j) {
        float* to = cell.data();
        for (int64_t colour = 0; colour < 3; ++colour) {
          for (int64_t t = 0; t < kCellT; ++t) {
            const int64_t frame = std::clamp<int64_t>(kStrideT * g - 3 + t, 0, frames - 1);
            for (int64_t y = 0; y < kCellH; ++y, to += kCellW) {
              const int64_t row = ((colour * frames + frame) * height + i * kCellH + y) * width;
              std::copy_n(video.begin() + row + j * kCellW, kCellW, to);
            }
          }
        }
        forward_cell(&cell);
        for (int c = 0; c < channels_; ++c) {
          latent[((c * groups + g) * h + i) * w + j] = cell[position[c]];
        }
      }
    }
  }
  return latent;
}

std::vector<float> HaarCodec::decode(std::span<const float> latent, int64_t latent_frames,
                                     int64_t h, int64_t w, int64_t frames, bool clamp) const {
  const int64_t groups = latent_frames, height = h * kStrideH, width = w * kStrideW;
  SPROCKET_CHECK_EQ(static_cast<int64_t>(latent.size()), channels_ * groups * h * w);
  SPROCKET_CHECK(frames > 0 && codec::latent_frames(frames) == groups,
                 "{} latent frames hold {} to {} frames, not {}", groups,
                 std::max<int64_t>(1, video_frames(groups) - 3), video_frames(groups), frames);
  std::vector<float> video(3 * frames * height * width);
  const std::vector<int> position = positions(channels_);
  Cell cell;
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t i = 0; i < h; ++i) {
      for (int64_t j = 0; j < w; ++j) {
        cell.fill(0);
        for (int c = 0; c < channels_; ++c) {
          // The mean of the four copies of the first frame is what the temporal mean alone decodes
          // to.
          if (g == 0 && haar_order()[c].t != 0) continue;
          cell[position[c]] = latent[((c * groups + g) * h + i) * w + j];
        }
        inverse_cell(&cell);
        for (int64_t t = g == 0 ? kCellT - 1 : 0; t < kCellT; ++t) {
          const int64_t frame = kStrideT * g - 3 + t;
          if (frame >= frames) break;
          for (int64_t colour = 0; colour < 3; ++colour) {
            for (int64_t y = 0; y < kCellH; ++y) {
              const int64_t row = ((colour * frames + frame) * height + i * kCellH + y) * width;
              const float* from = cell.data() + ((colour * kCellT + t) * kCellH + y) * kCellW;
              std::copy_n(from, kCellW, video.begin() + row + j * kCellW);
            }
          }
        }
      }
    }
  }
  if (clamp) {
    for (float& value : video) value = std::clamp(value, -1.0f, 1.0f);
  }
  return video;
}

}  // namespace sprocket::codec

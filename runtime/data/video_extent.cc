#include "runtime/data/video_extent.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "models/codec/haar.h"

namespace sprocket::data {
namespace {

constexpr int kSizeMultiple = 16;  // 8 of the codec, 2 of the model's patches

}  // namespace

std::vector<std::string> extent_problems(int64_t width, int64_t height, int64_t frames) {
  std::vector<std::string> problems;
  for (const auto& [name, value] : {std::pair{"width", width}, {"height", height}}) {
    if (value < kSizeMultiple || value % kSizeMultiple != 0 || value > 1 << 15) {
      const int64_t below = std::max<int64_t>(1, value / kSizeMultiple) * kSizeMultiple;
      problems.push_back(fmt::format("{}: {} is not a multiple of {} in 16..32768; near it: {}, {}",
                                     name, value, kSizeMultiple, below, below + kSizeMultiple));
    }
  }
  if (frames < 1 || frames % codec::kStrideT != 1) {
    const int64_t below = std::max<int64_t>(0, (frames - 1) / 4) * 4 + 1;
    problems.push_back(fmt::format("frames: {} is not of the form 4k+1; near it: {}, {}", frames,
                                   below, below + 4));
  }
  return problems;
}

}  // namespace sprocket::data

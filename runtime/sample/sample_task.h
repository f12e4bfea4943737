#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/data/index.h"

namespace sprocket::runtime {

// One video to make.
struct SampleTask {
  std::string prompt;
  std::vector<float> text;  // embedding
  data::LatentShape shape;
  double fps = 0;
  std::optional<int64_t> real;  // the data set's sample of this caption
  std::vector<float> negative;  // embedding of what guidance leads away from; empty: zeros
};

}  // namespace sprocket::runtime

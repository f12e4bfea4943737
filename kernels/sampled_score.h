// Which score sampled tokens give a pair of blocks (kernels/sampled_scores.h). C++17.
#pragma once

namespace sprocket::kernels {

enum class SampledScore { kSoftmax, kExpMinusMax };

}  // namespace sprocket::kernels

// Which sizes a video may have to become a latent.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sprocket::data {

// What is wrong with the extent of a clip in pixels and frames, one line each.
std::vector<std::string> extent_problems(int64_t width, int64_t height, int64_t frames);

}  // namespace sprocket::data

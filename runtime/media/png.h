#pragma once

#include <string>

#include "runtime/media/video.h"

namespace sprocket::media {

// Writes an 8-bit RGB PNG; equal images give equal files. Throws OutputError.
void write_png(const std::string& path, const Image& image);

}  // namespace sprocket::media

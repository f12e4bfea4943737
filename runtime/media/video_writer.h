#pragma once

#include <string>

#include "runtime/media/video.h"

namespace sprocket::media {

// Writes an mp4: H.264 (libx264, near-transparent quality) where the installed libavcodec has it,
// else MPEG-4 part 2; yuv420p, BT.709. Equal input and libraries give equal files.
// Width and height must be even. Throws OutputError (no encoder, disk full, read-only folder, …);
// an mp4 that was there before stays as it was then.
void write_mp4(const std::string& path, const Video& video);

}  // namespace sprocket::media

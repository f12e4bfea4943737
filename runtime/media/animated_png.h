// Moving pictures that any browser plays, in true colour.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/media/video.h"

namespace sprocket::media {

// What one may grow to; some 5 MB with these.
struct AnimationLimits {
  int longest_side = 256;  // pixels; larger videos are scaled down
  int64_t frames = 128;    // of longer ones every 2nd, 3rd, … frame is shown, for as much longer
};

struct AnimatedPng {
  int width = 0;
  int height = 0;
  std::vector<std::byte> file;
};

// An endless APNG; programs that know PNG alone show its first frame. Frames that are not scaled
// are exact. Equal input and libraries give equal bytes. The video has a frame and a rate. Throws
// OutputError when the installed libavcodec cannot make one.
AnimatedPng encode_animated_png(const Video& video, const AnimationLimits& limits = {});

}  // namespace sprocket::media

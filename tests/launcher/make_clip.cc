// make_clip FILE: a small video of a disc that moves over a gradient.
#include <cstdint>

#include "runtime/media/video_writer.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  sprocket::media::Video video{.frames = 17, .width = 128, .height = 80, .fps = 16, .rgb = {}};
  for (int64_t frame = 0; frame < video.frames; ++frame) {
    for (int y = 0; y < video.height; ++y) {
      for (int x = 0; x < video.width; ++x) {
        const int64_t dx = x - (20 + 5 * frame), dy = y - 40;
        const bool inside = dx * dx + dy * dy < 15 * 15;
        video.rgb.push_back(inside ? 230 : static_cast<uint8_t>(x));
        video.rgb.push_back(inside ? 60 : static_cast<uint8_t>(2 * y));
        video.rgb.push_back(inside ? 40 : 90);
      }
    }
  }
  sprocket::media::write_mp4(argv[1], video);
}

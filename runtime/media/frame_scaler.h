// One decoded picture to RGB of a wanted size; private to this folder.
#pragma once

#include <vector>

#include "runtime/media/libav.h"

namespace sprocket::media {

// Centre-crops to the wanted aspect ratio, scales, converts to RGB by the picture's own colour
// space and range (unlabelled: BT.709 from 720 lines on, else BT.601), and turns.
class FrameScaler {
 public:
  // `quarter_turns` counter-clockwise, 0..3, applied last; width and height are those after it.
  FrameScaler(int width, int height, int quarter_turns);

  // Writes [height, width, 3]. The picture may change size or format between calls. Crops it.
  void convert(AVFrame& picture, uint8_t* rgb);

 private:
  void prepare(const AVFrame& picture);

  int width_, height_, quarter_turns_;
  Libav<SwsContext> context_;
  int known_width_ = 0, known_height_ = 0, known_format_ = -1;
  std::vector<uint8_t> unturned_;
};

}  // namespace sprocket::media

// A picture to draw rectangles and short texts on.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "runtime/media/video.h"

namespace sprocket::runtime {

using Colour = std::array<uint8_t, 3>;  // red, green, blue

class Canvas {
 public:
  static constexpr int kLetterWidth = 6, kLetterHeight = 7;  // the gap after a letter included

  Canvas(int width, int height, Colour background);

  // What lies outside of the picture is left out.
  void fill(int x, int y, int width, int height, Colour colour);
  // The one-pixel border inside of the rectangle.
  void outline(int x, int y, int width, int height, Colour colour);
  // Capitals, digits and . , : - / ( ) = + %; lower case is drawn as capitals, anything else blank.
  // (x, y): top left. Every dot is scale x scale pixels.
  void text(int x, int y, std::string_view text, Colour colour, int scale = 1);

  static int text_width(std::string_view text, int scale = 1) {
    return static_cast<int>(text.size()) * kLetterWidth * scale;
  }
  const media::Image& image() const { return image_; }

 private:
  media::Image image_;
};

}  // namespace sprocket::runtime

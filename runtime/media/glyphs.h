// Letters of a few pixels, for captions in pictures.
#pragma once

#include <array>
#include <cstdint>

namespace sprocket::media {

inline constexpr int kGlyphWidth = 5;
inline constexpr int kGlyphHeight = 7;

// Rows from the top; bit kGlyphWidth - 1 is the leftmost pixel.
using Glyph = std::array<uint8_t, kGlyphHeight>;

// Of an ASCII character; small letters look like capitals. A frame for any other byte.
const Glyph& glyph_of(char character);

}  // namespace sprocket::media

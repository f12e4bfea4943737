// Pictures put together: captions, and pictures beside and below each other.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/media/video.h"

namespace sprocket::media {

// Characters of a caption's line in a picture of this width; at least 1.
int caption_columns(int width);

// Words in lines of at most `columns` characters, longer words cut; at most `most` lines, the last
// of which ends in "..." where text is left out. columns >= 3, most >= 1.
std::vector<std::string> wrap_words(const std::string& text, int columns, int most);

// Light text on a dark ground, `width` wide; what does not fit into a line is left out. The height
// is even.
Image caption(const std::vector<std::string>& lines, int width);

// From left to right with dark gaps of 4 pixels, tops aligned; from top to bottom without gaps,
// left sides aligned. At least one picture.
Image join_right(std::span<const Image> pictures);
Image join_down(std::span<const Image> pictures);

// Videos of one length and rate from left to right below `header`. At least one video.
Video side_by_side(const Image& header, std::span<const Video> videos);

}  // namespace sprocket::media

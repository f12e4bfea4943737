#include "runtime/media/montage.h"

#include <algorithm>
#include <sstream>

#include "base/error.h"
#include "runtime/media/glyphs.h"

namespace sprocket::media {
namespace {

constexpr int kGap = 4;
constexpr uint8_t kGround = 24, kInk = 224;
constexpr int kMargin = 2, kLineHeight = kGlyphHeight + 3, kAdvance = kGlyphWidth + 1;

Image ground(int width, int height) {
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width) * height * 3, kGround)};
}

void paste(const Image& picture, int left, int top, Image& onto) {
  const size_t line = static_cast<size_t>(picture.width) * 3;
  for (int y = 0; y < picture.height; ++y) {
    std::copy_n(picture.rgb.begin() + y * line, line,
                onto.rgb.begin() + (static_cast<size_t>(top + y) * onto.width + left) * 3);
  }
}

void draw(char character, int left, int top, Image& onto) {
  const Glyph& glyph = glyph_of(character);
  for (int y = 0; y < kGlyphHeight; ++y) {
    for (int x = 0; x < kGlyphWidth; ++x) {
      if ((glyph[y] >> (kGlyphWidth - 1 - x) & 1) == 0) continue;
      std::fill_n(onto.rgb.begin() + (static_cast<size_t>(top + y) * onto.width + left + x) * 3, 3,
                  kInk);
    }
  }
}

}  // namespace

int caption_columns(int width) { return std::max(1, (width - 2 * kMargin) / kAdvance); }

std::vector<std::string> wrap_words(const std::string& text, int columns, int most) {
  SPROCKET_CHECK(columns >= 3 && most >= 1, "{} columns, {} lines", columns, most);
  const size_t width = columns;
  std::vector<std::string> lines = {""};
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (!lines.back().empty() && lines.back().size() + 1 + word.size() <= width) {
      lines.back() += " " + word;
      continue;
    }
    if (!lines.back().empty()) lines.emplace_back();
    for (; word.size() > width; word = word.substr(width)) {
      lines.back() = word.substr(0, width);
      lines.emplace_back();
    }
    lines.back() = word;
  }
  if (lines.size() > static_cast<size_t>(most)) {
    lines.resize(most);
    lines.back() = lines.back().substr(0, width - 3) + "...";
  }
  return lines;
}

Image caption(const std::vector<std::string>& lines, int width) {
  const int height = static_cast<int>(lines.size()) * kLineHeight + 2 * kMargin;
  Image picture = ground(width, height + height % 2);
  for (size_t i = 0; i < lines.size(); ++i) {
    const size_t shown = std::min<size_t>(lines[i].size(), caption_columns(width));
    for (size_t k = 0; k < shown; ++k) {
      const int left = kMargin + static_cast<int>(k) * kAdvance;
      if (left + kGlyphWidth > width) break;
      draw(lines[i][k], left, kMargin + static_cast<int>(i) * kLineHeight, picture);
    }
  }
  return picture;
}

Image join_right(std::span<const Image> pictures) {
  SPROCKET_CHECK(!pictures.empty(), "no pictures");
  int width = -kGap, height = 0;
  for (const Image& picture : pictures) {
    width += picture.width + kGap;
    height = std::max(height, picture.height);
  }
  Image joined = ground(width, height);
  int left = 0;
  for (const Image& picture : pictures) {
    paste(picture, left, 0, joined);
    left += picture.width + kGap;
  }
  return joined;
}

Image join_down(std::span<const Image> pictures) {
  SPROCKET_CHECK(!pictures.empty(), "no pictures");
  int width = 0, height = 0;
  for (const Image& picture : pictures) {
    width = std::max(width, picture.width);
    height += picture.height;
  }
  Image joined = ground(width, height);
  int top = 0;
  for (const Image& picture : pictures) {
    paste(picture, 0, top, joined);
    top += picture.height;
  }
  return joined;
}

Video side_by_side(const Image& header, std::span<const Video> videos) {
  SPROCKET_CHECK(!videos.empty(), "no videos");
  Video joined;
  joined.frames = videos.front().frames;
  joined.fps = videos.front().fps;
  for (int64_t i = 0; i < joined.frames; ++i) {
    std::vector<Image> frames;
    for (const Video& video : videos) {
      SPROCKET_CHECK_EQ(video.frames, joined.frames);
      const auto pixels = video.frame(i);
      frames.push_back({video.width, video.height, {pixels.begin(), pixels.end()}});
    }
    const Image parts[] = {header, join_right(frames)};
    const Image frame = join_down(parts);
    joined.width = frame.width;
    joined.height = frame.height;
    joined.rgb.insert(joined.rgb.end(), frame.rgb.begin(), frame.rgb.end());
  }
  return joined;
}

}  // namespace sprocket::media

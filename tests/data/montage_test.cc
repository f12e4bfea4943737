#include <gmock/gmock.h>

#include "runtime/media/glyphs.h"
#include "runtime/media/montage.h"
#include "tests/data/synthetic_video.h"

namespace sprocket::media {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

bool lit(const Image& image, int x, int y) {
  return image.rgb[(static_cast<size_t>(y) * image.width + x) * 3] > 128;
}

TEST(Montage, WordsAreWrappedAndCut) {
  EXPECT_THAT(wrap_words("a large  white rabbit", 8, 9), ElementsAre("a large", "white", "rabbit"));
  EXPECT_THAT(wrap_words("a large white rabbit", 8, 2), ElementsAre("a large", "white..."));
  EXPECT_THAT(wrap_words("a largest white", 8, 2), ElementsAre("a", "large..."));
  EXPECT_THAT(wrap_words("incomprehensible", 6, 9), ElementsAre("incomp", "rehens", "ible"));
  EXPECT_THAT(wrap_words("", 6, 2), ElementsAre(""));
}

TEST(Montage, ACaptionShowsItsLetters) {
  const Image picture = caption({"L", "l"}, 16);
  EXPECT_EQ(picture.width, 16);
  EXPECT_EQ(picture.height % 2, 0);
  // An L is a left and a lower edge; the small one looks the same, a line below.
  int lines = 0;
  for (int y = 0; y + kGlyphHeight <= picture.height; ++y) {
    int left = 0, below = 0;
    for (int k = 0; k < kGlyphHeight; ++k) left += lit(picture, 2, y + k);
    for (int k = 0; k < kGlyphWidth; ++k) below += lit(picture, 2 + k, y + kGlyphHeight - 1);
    if (left == kGlyphHeight && below == kGlyphWidth) ++lines;
  }
  EXPECT_EQ(lines, 2);
  // What does not fit stays out, whatever the width.
  for (int width = 1; width < 20; ++width) EXPECT_EQ(caption({"MMMM"}, width).width, width);
}

TEST(Montage, EveryCharacterHasItsOwnGlyph) {
  const std::string all = " !\"%&'()*+,-./0123456789:;<=>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_";
  for (size_t i = 0; i < all.size(); ++i) {
    for (size_t k = 0; k < i; ++k)
      EXPECT_NE(glyph_of(all[i]), glyph_of(all[k])) << all[i] << all[k];
    EXPECT_NE(glyph_of(all[i]), glyph_of('\xff')) << all[i];
  }
  EXPECT_EQ(glyph_of('q'), glyph_of('Q'));
  EXPECT_EQ(glyph_of('~'), glyph_of('\xc3'));
}

TEST(Montage, PicturesKeepTheirPixels) {
  const Image red{2, 3, std::vector<uint8_t>(18, 200)}, blue{4, 1, std::vector<uint8_t>(12, 100)};
  const Image pictures[] = {red, blue};
  const Image right = join_right(pictures);
  EXPECT_EQ(right.width, 10);
  EXPECT_EQ(right.height, 3);
  EXPECT_EQ(right.rgb[(2 * 10 + 1) * 3], 200);
  EXPECT_EQ(right.rgb[(0 * 10 + 6) * 3], 100);
  EXPECT_EQ(right.rgb[(1 * 10 + 6) * 3], 24);
  const Image down = join_down(pictures);
  EXPECT_EQ(down.width, 4);
  EXPECT_EQ(down.height, 4);
  EXPECT_EQ(down.rgb[(3 * 4 + 3) * 3], 100);
  EXPECT_EQ(down.rgb[(2 * 4 + 3) * 3], 24);
}

TEST(Montage, VideosRunBesideEachOther) {
  const Video a = testing::synthetic_video(5, 64, 48, 8, 0),
              b = testing::synthetic_video(5, 64, 48, 8, 1);
  const Video videos[] = {a, b};
  const Image header = caption({"both"}, 132);
  const Video joined = side_by_side(header, videos);
  EXPECT_EQ(joined.frames, 5);
  EXPECT_EQ(joined.fps, 8);
  EXPECT_EQ(joined.width, 132);
  EXPECT_EQ(joined.height, 48 + header.height);
  for (const int64_t i : {0, 4}) {
    const size_t line = static_cast<size_t>(header.height + 20) * joined.width * 3;
    const auto row = joined.frame(i).subspan(line, 132 * 3);
    const auto left = a.frame(i).subspan(20 * 64 * 3, 64 * 3),
               right = b.frame(i).subspan(20 * 64 * 3, 64 * 3);
    EXPECT_TRUE(std::equal(left.begin(), left.end(), row.begin()));
    EXPECT_TRUE(std::equal(right.begin(), right.end(), row.begin() + 68 * 3));
    EXPECT_THAT(row.subspan(64 * 3, 12), Each(24));
  }
}

}  // namespace
}  // namespace sprocket::media

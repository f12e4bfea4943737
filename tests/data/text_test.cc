#include <gmock/gmock.h>

#include <cmath>

#include "models/text/hashed_text.h"

namespace sprocket::text {
namespace {

using ::testing::ElementsAre;

TEST(HashedText, Words) {
  EXPECT_THAT(words_of("  A big, BIG bunny-3d!"), ElementsAre("a", "big", "big", "bunny", "3d"));
  EXPECT_THAT(words_of("\u00c9t\u00e9 d'or"), ElementsAre("\u00c9t\u00e9", "d", "or"));
  EXPECT_TRUE(words_of(" ...").empty());
}

TEST(HashedText, EqualWordsHaveEqualRowsAndTheRestIsZero) {
  const int64_t dim = 512;
  const auto rows = embed_hashed("Red red blue", 5, dim);
  const auto row = [&](const std::vector<float>& all, int64_t i) {
    return std::vector<float>(all.begin() + i * dim, all.begin() + (i + 1) * dim);
  };
  EXPECT_EQ(row(rows, 0), row(rows, 1));
  EXPECT_NE(row(rows, 0), row(rows, 2));
  EXPECT_THAT(row(rows, 3), ::testing::Each(0.0f));
  EXPECT_THAT(row(rows, 4), ::testing::Each(0.0f));
  double dot = 0, norm = 0;
  for (int64_t i = 0; i < dim; ++i) {
    dot += row(rows, 0)[i] * row(rows, 2)[i];
    norm += row(rows, 0)[i] * row(rows, 0)[i];
  }
  // Independent normals: dot has deviation sqrt(dim), norm has mean dim and deviation sqrt(2 dim).
  EXPECT_LT(std::abs(dot), 5 * std::sqrt(dim));
  EXPECT_LT(std::abs(norm - dim), 5 * std::sqrt(2.0 * dim));
  EXPECT_EQ(row(embed_hashed("blue", 1, dim), 0), row(rows, 2));
}

TEST(HashedText, DropsWordsPastTheEnd) {
  EXPECT_EQ(embed_hashed("a b c", 2, 4), embed_hashed("a b", 2, 4));
  EXPECT_THAT(embed_hashed("", 2, 4), ::testing::Each(0.0f));
}

}  // namespace
}  // namespace sprocket::text

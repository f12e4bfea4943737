#include "base/philox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <vector>

namespace sprocket {
namespace {

using testing::ElementsAre;

// The known answers published with the generator (Random123, kat_vectors, philox4x32 10).
TEST(PhiloxTest, PublishedKnownAnswers) {
  EXPECT_THAT(philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(
      philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
      ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(
      philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

const RandomStream kStream(42, 7, 3, RandomPurpose::kTest);

// Checkpoints rely on it: a resumed job draws the same numbers.
TEST(RandomStreamTest, WordsAreTheCipherOfTheDocumentedCounter) {
  const auto block = philox4x32({5, 0, (7u << 8) | 6u, 3}, {42, 0});
  for (uint64_t lane = 0; lane < 4; ++lane) EXPECT_EQ(kStream.bits(20 + lane), block[lane]);
  const RandomStream wide(0x123456789abcdef0, 1, 2, RandomPurpose::kNoise);
  EXPECT_EQ(wide.bits(0), philox4x32({0, 0, (1u << 8) | 2u, 2}, {0x9abcdef0, 0x12345678})[0]);
  EXPECT_EQ(wide.bits(4ull << 32),
            philox4x32({0, 1, (1u << 8) | 2u, 2}, {0x9abcdef0, 0x12345678})[0]);
}

TEST(RandomStreamTest, NormalsDoNotDependOnThePositionOfTheSpan) {
  std::vector<float> all(101);
  kStream.normal(all);
  for (uint64_t first = 0; first < 12; ++first) {
    for (size_t count : {0, 1, 2, 3, 5, 8, 60}) {
      std::vector<float> part(count);
      kStream.normal(part, first);
      EXPECT_EQ(part, std::vector<float>(all.begin() + first, all.begin() + first + count));
    }
  }
}

TEST(RandomStreamTest, NormalsHaveTheMomentsOfANormal) {
  const int count = 200000;
  std::vector<float> values(count);
  kStream.normal(values);
  double moments[5] = {};
  for (const float value : values) {
    for (int power = 1; power <= 4; ++power) moments[power] += std::pow(value, power) / count;
  }
  // Five standard errors: var(z) = 1, var(z^2) = 2, var(z^3) = 15, var(z^4) = 96.
  const double error = 5 / std::sqrt(count);
  EXPECT_NEAR(moments[1], 0, error);
  EXPECT_NEAR(moments[2], 1, error * std::sqrt(2));
  EXPECT_NEAR(moments[3], 0, error * std::sqrt(15));
  EXPECT_NEAR(moments[4], 3, error * std::sqrt(96));
}

TEST(RandomStreamTest, UniformIsInsideTheOpenInterval) {
  // All the leading bits of this element are ones: with 24 of them the value would round to 1.
  const RandomStream stream(1, 0, 0, RandomPurpose::kTest);
  ASSERT_EQ(stream.bits(591304) >> 8, 0xffffffu);
  EXPECT_LT(stream.uniform(591304), 1);
  double sum = 0;
  for (uint64_t i = 0; i < 100000; ++i) {
    const float value = stream.uniform(i);
    ASSERT_TRUE(value > 0 && value < 1);
    sum += value;
  }
  EXPECT_NEAR(sum / 100000, 0.5, 5 * std::sqrt(1.0 / 12 / 100000));
}

TEST(RandomStreamTest, BelowCoversItsRangeEvenly) {
  std::map<uint64_t, int> counts;
  for (uint64_t i = 0; i < 70000; ++i) ++counts[kStream.below(i, 7)];
  ASSERT_EQ(counts.size(), 7u);
  for (const auto& [value, count] : counts) {
    EXPECT_LT(value, 7u);
    EXPECT_NEAR(count, 10000, 5 * std::sqrt(70000.0 / 7 * 6 / 7));
  }
  EXPECT_EQ(kStream.below(3, 1), 0u);
  EXPECT_LT(kStream.below(3, UINT64_MAX), UINT64_MAX);
}

TEST(RandomStreamTest, EveryPartOfTheKeyMatters) {
  const std::set<uint32_t> first_words{
      RandomStream(1, 2, 3, RandomPurpose::kTest).bits(0),
      RandomStream(2, 2, 3, RandomPurpose::kTest).bits(0),
      RandomStream(1ull << 32 | 1, 2, 3, RandomPurpose::kTest).bits(0),
      RandomStream(1, 3, 3, RandomPurpose::kTest).bits(0),
      RandomStream(1, 2, 4, RandomPurpose::kTest).bits(0),
      RandomStream(1, 2, 3, RandomPurpose::kNoise).bits(0),
      RandomStream(1, 2, 3, RandomPurpose::kTest).bits(1)};
  EXPECT_EQ(first_words.size(), 7u);
}

}  // namespace
}  // namespace sprocket

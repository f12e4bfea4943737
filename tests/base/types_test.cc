#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/bfloat16.h"
#include "base/dtype.h"

namespace sprocket {
namespace {

TEST(BFloat16Test, EveryPatternSurvivesTheRoundTrip) {
  for (uint32_t pattern = 0; pattern < 65536; ++pattern) {
    BFloat16 value;
    value.bits = static_cast<uint16_t>(pattern);
    const float wide = static_cast<float>(value);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(wide))));
    } else {
      ASSERT_EQ(BFloat16(wide).bits, pattern);
    }
  }
}

TEST(BFloat16Test, RoundsToNearestTiesToEven) {
  const auto rounded = [](float value) { return static_cast<float>(BFloat16(value)); };
  EXPECT_EQ(rounded(1 + 0x1p-8f), 1);                       // a tie, down to even
  EXPECT_EQ(rounded(1 + 3 * 0x1p-8f), 1 + 0x1p-6f);         // a tie, up to even
  EXPECT_EQ(rounded(1 + 0x1p-8f + 0x1p-23f), 1 + 0x1p-7f);  // above the tie
  EXPECT_EQ(rounded(-1 - 0x1p-9f), -1);
  EXPECT_EQ(rounded(std::numeric_limits<float>::max()), INFINITY);
  // A NaN whose payload is in the low half only must not become infinity.
  EXPECT_TRUE(std::isnan(rounded(std::bit_cast<float>(0x7f800001u))));
}

TEST(DTypeTest, SizesAndNames) {
  EXPECT_EQ(size_of(DType::kF64), 8u);
  EXPECT_EQ(size_of(DType::kBF16), 2u);
  EXPECT_EQ(size_of(DType::kU8), 1u);
  EXPECT_EQ(name_of(DType::kBF16), "bf16");
  EXPECT_EQ(kDTypeOf<BFloat16>, DType::kBF16);
  EXPECT_EQ(size_of(kDTypeOf<int32_t>), sizeof(int32_t));
}

}  // namespace
}  // namespace sprocket

#include "base/decimal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace sprocket {
namespace {

int64_t kept(const char* sparsity, int64_t blocks) {
  return (Decimal::ratio(1, 0) - Decimal::parse(sparsity)).ceil_times(blocks);
}

TEST(DecimalTest, CountsAreWhatTheUserMeant) {
  EXPECT_EQ(kept("0.95", 20), 1);
  EXPECT_EQ(static_cast<int>(std::ceil((1 - 0.95) * 20)), 2);  // why this class exists
  EXPECT_EQ(kept("0.85", 20), 3);
  EXPECT_EQ(kept("0.85", 40), 6);
  EXPECT_EQ(kept("0.9", 10), 1);
  EXPECT_EQ(kept("0.9", 1000000), 100000);
  EXPECT_EQ(kept("0.9", 11), 2);
  EXPECT_EQ(kept("0", 7), 7);
  EXPECT_EQ(kept("1", 7), 0);
}

// Whatever two-digit sparsity and number of blocks: the count is that of integers.
TEST(DecimalTest, EveryPercentageIsExact) {
  for (int64_t percent = 0; percent <= 100; ++percent) {
    const Decimal from_text = Decimal::parse(fmt::format("{}.{:02}", percent / 100, percent % 100));
    const Decimal from_binary = Decimal::from_double(static_cast<double>(percent) / 100);
    EXPECT_EQ(from_text, from_binary);
    const Decimal rest = Decimal::ratio(1, 0) - from_binary;
    for (int64_t blocks = 0; blocks <= 700; ++blocks) {
      ASSERT_EQ(rest.ceil_times(blocks), ((100 - percent) * blocks + 99) / 100);
      ASSERT_EQ(from_binary.floor_times(blocks), percent * blocks / 100);
    }
  }
}

// Steps of 0.04 up to 0.8: in binary the twentieth sum is not 0.8.
TEST(DecimalTest, AScheduleArrivesWhereItSays) {
  const Decimal step = Decimal::parse("0.04"), target = Decimal::parse("0.8");
  Decimal sparsity;
  int stages = 0;
  while (sparsity < target) {
    sparsity = sparsity + step;
    ++stages;
    EXPECT_EQ(sparsity, step * stages);
  }
  EXPECT_EQ(stages, 20);
  EXPECT_EQ(sparsity, target);
  EXPECT_EQ(sparsity.to_string(), "0.8");
  EXPECT_EQ(Decimal::parse("0.03") * 30, Decimal::parse("0.9"));
}

TEST(DecimalTest, ReadsTheUsualForms) {
  for (const auto& [text, printed] : std::vector<std::pair<const char*, const char*>>{
           {"0.95", "0.95"},
           {"1", "1"},
           {".5", "0.5"},
           {"5.", "5"},
           {"1e-2", "0.01"},
           {"2.50E+1", "25"},
           {"+.5", "0.5"},
           {"-0.250", "-0.25"},
           {"-0", "0"},
           {"0.000", "0"},
           {"0e99", "0"},
           {"1e18", "1000000000000000000"},
           {"0.000000000000000001", "0.000000000000000001"},
           {"123456789.012345678", "123456789.012345678"}}) {
    EXPECT_EQ(Decimal::parse(text).to_string(), printed) << text;
  }
}

TEST(DecimalTest, RefusesTheRestNamingIt) {
  for (const char* text : {"",
                           "-",
                           ".",
                           "e5",
                           "1e",
                           "1e+",
                           "1e+-5",
                           "1e5x",
                           "0.9.5",
                           "0,9",
                           " 1",
                           "1 ",
                           "nan",
                           "1e19",
                           "999999999999999999e18",
                           "1e-19",
                           "0.0000000000000000001",
                           "12345678901234567890",
                           "1e-2147483648",
                           "1e99999999999999999999"}) {
    try {
      Decimal::parse(text);
      ADD_FAILURE() << "accepted " << text;
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(fmt::format("\"{}\"", text)));
      EXPECT_THAT(error.what(), testing::StartsWith("expected a decimal number"));
    }
  }
}

TEST(DecimalTest, DoublesSurviveTheRoundTrip) {
  for (const double value :
       {0.95, 0.1 + 0.2, 1.0 / 3, 2.0 / 3, 1e-3, 123456.789, -0.7, 0.0, 1e17}) {
    EXPECT_EQ(Decimal::from_double(value).value(), value);
  }
  EXPECT_EQ(Decimal::from_double(0.9).to_string(), "0.9");
  for (const double value : {double{NAN}, double{INFINITY}, 1e300, 1e-300}) {
    EXPECT_THROW(Decimal::from_double(value), ConfigError);
  }
}

TEST(DecimalTest, FloorAndCeilOfNegativeNumbers) {
  const Decimal minus = Decimal::parse("-0.3");
  EXPECT_EQ(minus.floor_times(4), -2);
  EXPECT_EQ(minus.ceil_times(4), -1);
  EXPECT_EQ(minus.floor_times(10), -3);
  EXPECT_EQ(minus.ceil_times(10), -3);
}

TEST(DecimalTest, ArithmeticAndOrder) {
  EXPECT_EQ(Decimal::parse("0.1") + Decimal::parse("0.2"), Decimal::parse("0.3"));
  EXPECT_EQ(Decimal::parse("1") - Decimal::parse("1.00"), Decimal());
  EXPECT_TRUE(Decimal::parse("0.099") < Decimal::parse("0.1"));
  EXPECT_FALSE(Decimal::parse("0.10") < Decimal::parse("0.1"));
  EXPECT_TRUE(Decimal::parse("-1") < Decimal());
  EXPECT_EQ(Decimal::ratio(250, 3), Decimal::parse("0.25"));
  EXPECT_THROW(Decimal::parse("1e18") * 100, ConfigError);
  EXPECT_THROW(Decimal::parse("1e18") + Decimal::parse("1e-18"), ConfigError);
  EXPECT_THROW(Decimal::ratio(1, 19), InternalError);
}

}  // namespace
}  // namespace sprocket

#include "runtime/profile/quantity.h"

#include <gtest/gtest.h>

namespace sprocket::profile {
namespace {

TEST(Quantity, IsWrittenInTheUnitThatFits) {
  EXPECT_EQ(percent(0.1234), "12.3 %");
  EXPECT_EQ(seconds_text(1.92), "1.920 s");
  EXPECT_EQ(seconds_text(0.0382), "38.2 ms");
  EXPECT_EQ(seconds_text(7e-6), "7 µs");
  EXPECT_EQ(ms_text(1920), "1.920 s");
  EXPECT_EQ(bytes_text(999), "999 B");
  EXPECT_EQ(bytes_text(1500), "1.5 kB");
  EXPECT_EQ(bytes_text(3.2e6), "3.20 MB");
  EXPECT_EQ(bytes_text(4.5e9), "4.50 GB");
}

TEST(Quantity, DurationsAsPeopleWriteThem) {
  EXPECT_EQ(duration_text(0.4), "0:00");
  EXPECT_EQ(duration_text(65), "1:05");
  EXPECT_EQ(duration_text(3723.4), "1:02:03");
  EXPECT_EQ(duration_text(-5), "0:00");
}

}  // namespace
}  // namespace sprocket::profile

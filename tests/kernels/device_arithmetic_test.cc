// What device code computes with, on the host against what hosts compute with.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/philox.h"
#include "kernels/isa.h"
#include "kernels/lane_exp.h"
#include "kernels/lanes.h"
#include "kernels/mass_share.h"
#include "kernels/score_order.h"
#include "kernels/threshold_rule.h"

namespace sprocket::kernels {
namespace {

struct ExpKernel {
  SPROCKET_INLINE static void run(const float* x, int64_t count, float* y) {
    for (int64_t i = 0; i < count; i += kLanes<float>) store(y + i, exp_of_lanes(load(x + i)));
  }
};

TEST(DeviceArithmeticTest, ExpHasTheBitsOfALaneWithFusedMultiplyAdds) {
  ASSERT_NE(current_isa(), Isa::kBaseline);
  constexpr int64_t kCount = 1 << 16;
  std::vector<float> x(kCount), y(kCount);
  for (int64_t i = 0; i < kCount; ++i) x[i] = -110.0f + 0.0031f * static_cast<float>(i);
  x[0] = std::numeric_limits<float>::infinity();
  x[1] = -x[0];
  x[2] = -0.0f;
  x[3] = 0.0f;
  run_on_isa<ExpKernel>(static_cast<const float*>(x.data()), kCount, y.data());
  int64_t different = 0;
  for (int64_t i = 0; i < kCount; ++i) different += exp_of_lane(x[i]) != y[i];
  EXPECT_EQ(different, 0);
  EXPECT_TRUE(std::isnan(exp_of_lane(std::numeric_limits<float>::quiet_NaN())));
}

TEST(DeviceArithmeticTest, ShareRoundsOnceAsInExtendedPrecision) {
  std::vector<float> draws(3000);
  RandomStream(4, 0, 1, RandomPurpose::kTest).normal(draws);
  for (const char* text : {"0.4", "0.95", "0.7", "1", "0", "1e-9", "0.333333333333333333"}) {
    const Decimal decimal = Decimal::parse(text);
    const auto extended =
        static_cast<long double>(decimal.floor_times(1'000'000'000'000'000'000)) / 1e18L;
    const ScaledShare share = share_of(decimal);
    const auto expect_product = [&](double total) {
      EXPECT_EQ(share.of(total), static_cast<double>(extended * total)) << text << " " << total;
    };
    for (const float draw : draws) {
      expect_product(std::abs(static_cast<double>(draw)) * 300);
      expect_product(std::exp(20.0 * draw));
    }
    for (int total = 0; total < 300; ++total) expect_product(total);
    for (int exponent = -60; exponent < 60; ++exponent) expect_product(std::ldexp(1.0, exponent));
  }
  EXPECT_EQ(share_of(Decimal::parse("0.7")).of(90), 63);
}

TEST(DeviceArithmeticTest, BucketsHoldAllMassThatMustNotBeLeftOut) {
  for (const int blocks : {1, 5, 64, 4096}) {
    for (const double tau : {0.01, 0.5, 0.9, 0.999}) {
      for (const double total : {1.0, 1.7, static_cast<double>(blocks)}) {
        const double distance = kMassBuckets / mass_buckets_per_unit(blocks, tau, total);
        EXPECT_GE(distance, 1);
        EXPECT_GE(distance, std::log(blocks / ((1 - tau) * total)));
        EXPECT_LE(distance,
                  std::max(1.0, std::log(2 * blocks / ((1 - tau) * total))) * (1 + 1e-12));
      }
    }
  }
}

}  // namespace
}  // namespace sprocket::kernels

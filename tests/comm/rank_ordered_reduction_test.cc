#include "parallel/comm/rank_ordered_reduction.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/bfloat16.h"

namespace sprocket::comm {
namespace {

template <class T>
std::vector<T> reduced(ReduceOp op, DType dtype, const std::vector<std::vector<T>>& ranks) {
  std::vector<const void*> sources;
  for (const auto& rank : ranks) sources.push_back(rank.data());
  std::vector<T> out(ranks[0].size());
  reduce_in_rank_order(dtype, op, sources, out.data(), static_cast<int64_t>(out.size()));
  return out;
}

TEST(RankOrderedReduction, KeepsTheOrder) {
  // (1 + 2^24) - 2^24 loses the 1, 1 + (2^24 - 2^24) keeps it.
  const float big = 16777216.0f;
  EXPECT_EQ(reduced<float>(ReduceOp::kSum, DType::kF32, {{1, big}, {big, -big}, {-big, 1}}),
            (std::vector<float>{0, 1}));
}

TEST(RankOrderedReduction, RoundsBf16Once) {
  // 256 + 1 + 1 is 258 in fp32; rounding in between would leave 256.
  const std::vector<std::vector<BFloat16>> ranks{{BFloat16(256)}, {BFloat16(1)}, {BFloat16(1)}};
  EXPECT_EQ(static_cast<float>(reduced<BFloat16>(ReduceOp::kSum, DType::kBF16, ranks)[0]), 258.0f);
}

TEST(RankOrderedReduction, RoundsF16OnceToNearestEven) {
  using Half = _Float16;
  // 2048 + 1 + 1 + 1 is 2051 in fp32, halfway between 2050 and 2052: to even.
  const std::vector<std::vector<Half>> ranks{
      {Half(2048), Half(6.0e-8f)}, {Half(1), Half(0)}, {Half(1), Half(0)}, {Half(1), Half(0)}};
  const auto out = reduced<Half>(ReduceOp::kSum, DType::kF16, ranks);
  EXPECT_EQ(static_cast<float>(out[0]), 2052.0f);
  EXPECT_EQ(static_cast<float>(out[1]), 5.9604644775390625e-8f) << "the smallest subnormal";
  const std::vector<std::vector<Half>> large{{Half(65504)}, {Half(65504)}};
  EXPECT_TRUE(std::isinf(static_cast<float>(reduced<Half>(ReduceOp::kSum, DType::kF16, large)[0])));
}

TEST(RankOrderedReduction, IntegersWrapAround) {
  const int32_t top = std::numeric_limits<int32_t>::max();
  EXPECT_EQ(reduced<int32_t>(ReduceOp::kSum, DType::kI32, {{top}, {1}})[0],
            std::numeric_limits<int32_t>::min());
  EXPECT_EQ(reduced<uint8_t>(ReduceOp::kSum, DType::kU8, {{250}, {10}})[0], 4);
  EXPECT_EQ(reduced<int64_t>(ReduceOp::kMin, DType::kI64, {{-3}, {7}})[0], -3);
}

TEST(RankOrderedReduction, MaxAndMinKeepNaN) {
  const double nan = std::nan("");
  for (const auto op : {ReduceOp::kMax, ReduceOp::kMin}) {
    EXPECT_TRUE(std::isnan(reduced<double>(op, DType::kF64, {{nan}, {1}, {2}})[0]));
    EXPECT_TRUE(std::isnan(reduced<double>(op, DType::kF64, {{1}, {nan}, {2}})[0]));
    EXPECT_TRUE(std::isnan(reduced<double>(op, DType::kF64, {{1}, {2}, {nan}})[0]));
  }
}

TEST(RankOrderedReduction, WritesOverASource) {
  std::vector<float> a(1500, 1), b(1500, 2);
  const std::vector<const void*> sources{a.data(), b.data()};
  reduce_in_rank_order(DType::kF32, ReduceOp::kSum, sources, b.data(), 1500);
  EXPECT_EQ(b, std::vector<float>(1500, 3));
}

}  // namespace
}  // namespace sprocket::comm

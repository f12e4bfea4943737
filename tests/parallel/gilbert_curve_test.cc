#include "parallel/gilbert_curve.h"

#include <algorithm>
#include <cstdlib>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace sprocket::parallel {
namespace {

using Cell = std::array<int32_t, 3>;
using Cells = std::vector<Cell>;

const std::vector<Cell> kLargeSizes{{21, 30, 52}, {21, 45, 80}, {1, 30, 52}, {13, 17, 19},
                                    {7, 1, 23},   {31, 2, 3},   {1, 1, 97},  {6, 8, 13}};

template <typename Visit>
void for_small_sizes(Visit visit) {
  for (int t = 1; t <= 12; ++t)
    for (int h = 1; h <= 12; ++h)
      for (int w = 1; w <= 12; ++w) visit(Cell{t, h, w});
}

constexpr uint64_t kFnvOffset = 0xcbf29ce484222325;

// FNV-1a over the raster indices w + W (h + H t) of the cells, eight bytes each, low byte first.
uint64_t fingerprint(const Cell& size, uint64_t hash = kFnvOffset) {
  for (const auto& [t, h, w] : gilbert_curve(size)) {
    const uint64_t index = w + static_cast<uint64_t>(size[2]) * (h + size[1] * t);
    for (int byte = 0; byte < 8; ++byte) {
      hash = (hash ^ ((index >> (8 * byte)) & 0xff)) * 0x100000001b3;
    }
  }
  return hash;
}

TEST(GilbertCurve, SmallBoxesByHand) {
  EXPECT_EQ(gilbert_curve({1, 1, 1}), (Cells{{0, 0, 0}}));
  EXPECT_EQ(gilbert_curve({1, 1, 3}), (Cells{{0, 0, 0}, {0, 0, 1}, {0, 0, 2}}));
  EXPECT_EQ(gilbert_curve({1, 3, 1}), (Cells{{0, 0, 0}, {0, 1, 0}, {0, 2, 0}}));
  EXPECT_EQ(gilbert_curve({3, 1, 1}), (Cells{{0, 0, 0}, {1, 0, 0}, {2, 0, 0}}));
  EXPECT_EQ(
      gilbert_curve({2, 2, 2}),
      (Cells{
          {0, 0, 0}, {0, 1, 0}, {1, 1, 0}, {1, 0, 0}, {1, 0, 1}, {1, 1, 1}, {0, 1, 1}, {0, 0, 1}}));
  EXPECT_EQ(gilbert_curve({1, 3, 3}), (Cells{{0, 0, 0},
                                             {0, 0, 1},
                                             {0, 1, 1},
                                             {0, 1, 0},
                                             {0, 2, 0},
                                             {0, 2, 1},
                                             {0, 2, 2},
                                             {0, 1, 2},
                                             {0, 0, 2}}));
  // An odd long side and an even short one cost a diagonal step.
  EXPECT_EQ(gilbert_curve({1, 2, 3}),
            (Cells{{0, 0, 0}, {0, 0, 1}, {0, 1, 0}, {0, 1, 1}, {0, 1, 2}, {0, 0, 2}}));
}

// The rest of the truth about odd boxes is that the published curve jumps there now and then.
TEST(GilbertCurve, EveryCellOnceAndUnitStepsOnEvenBoxes) {
  const auto check = [](const Cell& size) {
    SCOPED_TRACE(::testing::PrintToString(size));
    const Cells cells = gilbert_curve(size);
    ASSERT_EQ(cells.size(), static_cast<size_t>(size[0]) * size[1] * size[2]);
    ASSERT_EQ(std::set<Cell>(cells.begin(), cells.end()).size(), cells.size());
    ASSERT_EQ(cells.front(), (Cell{0, 0, 0}));
    int diagonals = 0, jumps = 0;
    for (size_t i = 0; i < cells.size(); ++i) {
      int taxi = 0, longest = 0;
      for (int axis = 0; axis < 3; ++axis) {
        ASSERT_GE(cells[i][axis], 0);
        ASSERT_LT(cells[i][axis], size[axis]);
        const int step = i == 0 ? 0 : std::abs(cells[i][axis] - cells[i - 1][axis]);
        taxi += step;
        longest = std::max(longest, step);
      }
      diagonals += taxi > 1 && longest == 1;
      jumps += longest > 1;
    }
    const bool even = size[0] % 2 == 0 && size[1] % 2 == 0 && size[2] % 2 == 0;
    const bool flat = size[0] == 1 || size[1] == 1 || size[2] == 1;
    if (even || flat) {
      EXPECT_EQ(jumps, 0);
      EXPECT_LE(diagonals, flat ? 1 : 0);
    }
  };
  for_small_sizes(check);
  for (const Cell& size : kLargeSizes) check(size);
}

// Fingerprints of the published Python program's output, which divides with rounding down. With
// truncation the curve of 21x30x52 and of most odd boxes is another one.
TEST(GilbertCurve, IsThePublishedCurve) {
  const std::vector<uint64_t> published{0xf588782bb75806a1, 0x04b5c5aaf829dea1, 0x9651218cb0751d11,
                                        0x59b9cb65d0595ff6, 0x4db380382f3ec4a5, 0xcb43f1368745d544,
                                        0x2903a18b8f7953e5, 0xc8763630b8ec22ad};
  ASSERT_EQ(published.size(), kLargeSizes.size());
  for (size_t i = 0; i < published.size(); ++i) {
    EXPECT_EQ(fingerprint(kLargeSizes[i]), published[i])
        << ::testing::PrintToString(kLargeSizes[i]);
  }
  uint64_t small = kFnvOffset;
  for_small_sizes([&](const Cell& size) { small = fingerprint(size, small); });
  EXPECT_EQ(small, 0xbce1ce975ec6e515) << "all sizes up to 12x12x12";
}

TEST(GilbertCurve, RefusesAnEmptyBox) { EXPECT_THROW(gilbert_curve({4, 0, 4}), InternalError); }

}  // namespace
}  // namespace sprocket::parallel

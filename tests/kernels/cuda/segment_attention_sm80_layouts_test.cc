// The layouts of family sm_80, evaluated on the host, against plain formulas.
#include "kernels/cuda/segment_attention_sm80_layouts.h"

#include <gtest/gtest.h>

#include <set>

namespace sprocket::kernels::cuda::sm80 {
namespace {

using BFloat = cutlass::bfloat16_t;

constexpr int kBankBytes = 128;  // of shared memory that one access reaches

template <int kRows, int kColumns>
void expect_tile() {
  SCOPED_TRACE(std::to_string(kRows) + " x " + std::to_string(kColumns));
  const auto tile = typename TileLayout<kRows, kColumns>::Type{};
  const auto transposed = typename TileLayout<kRows, kColumns>::Transposed{};
  std::set<int> places;
  for (int row = 0; row < kRows; ++row) {
    for (int column = 0; column < kColumns; ++column) {
      const int place = tile(row, column);
      places.insert(place);
      EXPECT_EQ(transposed(column, row), place);
      // Pieces of 8 elements stay together.
      EXPECT_EQ(place, tile(row, column / 8 * 8) + column % 8);
    }
  }
  EXPECT_EQ(static_cast<int>(places.size()), kRows * kColumns);
  EXPECT_EQ(*places.rbegin(), kRows * kColumns - 1);
  // What ldmatrix reads at once, 8 pieces under each other, meets every bank once.
  for (int row = 0; row < kRows; row += 8) {
    for (int column = 0; column < kColumns; column += 8) {
      std::set<int> banks;
      for (int i = 0; i < 8; ++i) banks.insert(2 * tile(row + i, column) % kBankBytes / 16);
      EXPECT_EQ(banks.size(), 8u) << row << ", " << column;
    }
  }
}

TEST(SegmentAttentionSm80Layouts, TilesArePermutedWithoutBankConflicts) {
  expect_tile<64, 64>();
  expect_tile<64, 128>();
  expect_tile<32, 128>();
  expect_tile<128, 128>();
  expect_tile<128, 64>();
  expect_tile<64, 32>();
}

// Each 16-byte piece of a tile is copied by one thread, to one place; the pieces that the threads
// of a quarter warp write lie in different banks.
template <int kThreads, int kRows, int kColumns>
void expect_copy() {
  const auto copy = typename TileCopy<BFloat, kThreads, kColumns>::Type{};
  const auto shape = Shape<Int<kRows>, Int<kColumns>>{};
  const auto tile = typename TileLayout<kRows, kColumns>::Type{};
  std::set<std::pair<int, int>> copied;
  std::vector<std::vector<std::pair<int, int>>> pieces(kThreads);
  for (int thread = 0; thread < kThreads; ++thread) {
    const auto places = copy.get_thread_slice(thread).partition_S(make_identity_tensor(shape));
    EXPECT_EQ(int(size<0>(places)), 8);
    for (int m = 0; m < size<1>(places); ++m) {
      for (int k = 0; k < size<2>(places); ++k) {
        const int row = get<0>(places(0, m, k)), column = get<1>(places(0, m, k));
        EXPECT_EQ(row, int(get<0>(places(0, m, 0))));  // one predicate for all pieces of m
        pieces[thread].emplace_back(row, column);
        for (int i = 0; i < 8; ++i) {
          EXPECT_EQ(int(get<0>(places(i, m, k))), row);
          EXPECT_EQ(int(get<1>(places(i, m, k))), column + i);
          copied.emplace(row, column + i);
        }
      }
    }
  }
  EXPECT_EQ(static_cast<int>(copied.size()), kRows * kColumns);
  for (int thread = 0; thread < kThreads; thread += 8) {
    for (size_t piece = 0; piece < pieces[thread].size(); ++piece) {
      std::set<int> banks;
      for (int i = 0; i < 8; ++i) {
        const auto [row, column] = pieces[thread + i][piece];
        banks.insert(2 * tile(row, column) % kBankBytes / 16);
      }
      EXPECT_EQ(banks.size(), 8u);
    }
  }
}

TEST(SegmentAttentionSm80Layouts, CopiesCoverTheirTilesOnce) {
  expect_copy<64, 32, 64>();
  expect_copy<64, 64, 128>();
  expect_copy<64, 64, 32>();
  expect_copy<128, 64, 128>();
  expect_copy<128, 32, 128>();
  expect_copy<128, 64, 64>();
  expect_copy<256, 64, 128>();
  expect_copy<256, 128, 64>();
}

// Value (i, 0, n) of a thread's sums is row 16 warp + lane / 4 + 8 (i / 2), column 8 n +
// 2 (lane % 4) + i % 2: what masks, statistics and stores are written for.
template <int kWarps, int kColumns>
void expect_sums() {
  const typename WarpMma<BFloat, kWarps>::Type mma;
  const auto shape = Shape<Int<16 * kWarps>, Int<kColumns>>{};
  for (int thread = 0; thread < 32 * kWarps; ++thread) {
    const auto sums = mma.get_thread_slice(thread).partition_C(make_identity_tensor(shape));
    EXPECT_EQ(int(size<0>(sums)), 4);
    EXPECT_EQ(int(size<1>(sums)), 1);
    EXPECT_EQ(int(size<2>(sums)), kColumns / 8);
    for (int n = 0; n < kColumns / 8; ++n) {
      for (int i = 0; i < 4; ++i) {
        EXPECT_EQ(int(get<0>(sums(i, 0, n))), thread / 32 * 16 + thread % 32 / 4 + i / 2 * 8);
        EXPECT_EQ(int(get<1>(sums(i, 0, n))), 8 * n + thread % 4 * 2 + i % 2);
      }
    }
  }
}

TEST(SegmentAttentionSm80Layouts, SumsLieWhereTheKernelsTakeThemToBe) {
  expect_sums<2, 64>();
  expect_sums<4, 64>();
  expect_sums<4, 128>();
  expect_sums<4, 32>();
  expect_sums<8, 128>();
}

// Value (i, 0, k) of a left operand is what two neighbouring results of a product hold: row as
// above, column 16 k + 8 (i / 4) + 2 (lane % 4) + i % 2. So rounded sums are a left operand as they
// are, and a pair's slot is filled from one.
template <int kWarps, int kColumns>
void expect_left() {
  const typename WarpMma<BFloat, kWarps>::Type mma;
  const auto shape = Shape<Int<16 * kWarps>, Int<kColumns>>{};
  for (int thread = 0; thread < 32 * kWarps; ++thread) {
    const auto left = mma.get_thread_slice(thread).partition_A(make_identity_tensor(shape));
    EXPECT_EQ(int(size<0>(left)), 8);
    EXPECT_EQ(int(size<1>(left)), 1);
    EXPECT_EQ(int(size<2>(left)), kColumns / 16);
    for (int k = 0; k < kColumns / 16; ++k) {
      for (int i = 0; i < 8; ++i) {
        EXPECT_EQ(int(get<0>(left(i, 0, k))), thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8);
        EXPECT_EQ(int(get<1>(left(i, 0, k))), 16 * k + i / 4 * 8 + thread % 4 * 2 + i % 2);
      }
    }
  }
}

TEST(SegmentAttentionSm80Layouts, SumsAreLeftOperands) {
  expect_left<2, 64>();
  expect_left<4, 64>();
  expect_left<4, 32>();
  expect_left<8, 64>();
}

// Each thread of a warp points at a 16-byte piece; ldmatrix takes them eight at a time.
template <class Copy, class Tile>
void expect_load(const Copy& copy, int threads, const Tile& tile) {
  for (int warp = 0; warp < threads; warp += 32) {
    for (int eight = warp; eight < warp + 32; eight += 8) {
      const auto first = copy.get_thread_slice(eight).partition_S(tile);
      for (int m = 0; m < size<1>(first); ++m) {
        for (int k = 0; k < size<2>(first); ++k) {
          std::set<int> banks;
          for (int i = 0; i < 8; ++i) {
            const auto from = copy.get_thread_slice(eight + i).partition_S(tile);
            const auto address = reinterpret_cast<uintptr_t>(raw_pointer_cast(&from(0, m, k)));
            EXPECT_EQ(address % 16, 0u);
            banks.insert(static_cast<int>(address % kBankBytes / 16));
          }
          EXPECT_EQ(banks.size(), 8u);
        }
      }
    }
  }
}

TEST(SegmentAttentionSm80Layouts, LoadsOfOperandsMeetEveryBankOnce) {
  alignas(128) static BFloat memory[128 * 128];
  const typename WarpMma<BFloat, 4>::Type mma;
  const auto rows = tile_at<BFloat, 64, 128>(memory);
  const auto transposed = transposed_tile_at<BFloat, 64, 128>(memory);
  expect_load(make_tiled_copy_A(LoadRows<BFloat>{}, mma), 128, rows);
  expect_load(make_tiled_copy_B(LoadRows<BFloat>{}, mma), 128, rows);
  expect_load(make_tiled_copy_B(LoadTransposed<BFloat>{}, mma), 128, transposed);
  // The gradients of the scores, [keys][queries] read as [queries][keys].
  const typename WarpMma<BFloat, 2>::Type small;
  const auto dscores = transposed_tile_at<BFloat, 64, 32>(memory);
  expect_load(make_tiled_copy_A(LoadTransposed<BFloat>{}, small), 64, dscores);
}

}  // namespace
}  // namespace sprocket::kernels::cuda::sm80

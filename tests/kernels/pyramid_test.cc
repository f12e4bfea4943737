#include "kernels/pyramid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/global_tokens.h"
#include "kernels/isa.h"

namespace sprocket::kernels {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<int> kWidths{1, 2, 4, 8};
const std::vector<int64_t> kOffsets{0, 128, 129, 132, 132, 139, 266, 268};

template <class T>
std::vector<T> normal_values(int64_t count, uint64_t sample) {
  std::vector<float> values(count);
  RandomStream(17, 0, sample, RandomPurpose::kTest).normal(values);
  std::vector<T> result(count);
  for (int64_t i = 0; i < count; ++i) result[i] = static_cast<T>(values[i]);
  return result;
}

struct IsaLimit {
  explicit IsaLimit(Isa isa) { limit_isa(isa); }
  ~IsaLimit() { limit_isa(Isa::kAvx512); }
};

// A view into the middle of a buffer whose every stride has a gap, and a check that the gaps stay.
template <class T>
struct Guarded {
  static constexpr int kGap = 3;
  T sentinel = T(1234.0f);
  int batch, heads, dim;
  int64_t rows;
  std::vector<T> data;

  Guarded(int b, int64_t r, int h, int d)
      : batch(b),
        heads(h),
        dim(d),
        rows(r),
        data((static_cast<int64_t>(b) * r * h + 1) * (d + kGap), sentinel) {}
  HeadView<T> view() {
    const int64_t width = dim + kGap;
    return {data.data() + kGap, rows * heads * width, heads * width, width};
  }
  HeadView<const T> const_view() {
    const HeadView<T> v = view();
    return {v.data, v.batch_stride, v.row_stride, v.head_stride};
  }
  T& at(int64_t b, int64_t row, int64_t h, int d) { return view().row(b, row, h)[d]; }
  template <class Value>
  void fill(Value value) {
    for (int64_t i = 0; i < static_cast<int64_t>(batch) * rows * heads * dim; ++i) {
      at(i / dim / heads / rows, i / dim / heads % rows, i / dim % heads, i % dim) = value(i);
    }
  }
  bool gaps_are_intact() const {
    for (size_t i = 0; i < data.size(); ++i) {
      if (i % (dim + kGap) < kGap && std::memcmp(&data[i], &sentinel, sizeof(T)) != 0) return false;
    }
    return true;
  }
};

TEST(PyramidLayoutTest, SegmentsAreFullGroupsAndARestOfEveryLevel) {
  const PyramidLayout layout =
      make_pyramid_layout(std::vector<int64_t>{10, 21, 22, 22, 30}, kWidths);
  // 11 tokens: 11 | 5 + 1 | 2 + 1 (of 3) | 1 + 1 (of 3); 1 token; none; 8 tokens.
  EXPECT_THAT(layout.first_segment, ElementsAre(0, 7, 11, 12, 16));
  EXPECT_THAT(layout.segment_rows_offsets,
              ElementsAre(0, 11, 16, 17, 19, 20, 21, 22, 23, 24, 25, 26, 26, 34, 38, 40, 41));
  EXPECT_THAT(layout.level, ElementsAre(1, 2, 2, 3, 3, 4, 4, 1, 2, 3, 4, 1, 1, 2, 3, 4));
  const std::vector<int> tokens{1, 2, 1, 4, 3, 8, 3, 1, 1, 1, 1, 1, 1, 2, 4, 8};
  for (size_t i = 0; i < tokens.size(); ++i) EXPECT_EQ(layout.bias[i], std::log(tokens[i]));
  EXPECT_EQ(layout.segments_of(0, 3).first, 3);
  EXPECT_EQ(layout.segments_of(0, 3).count, 2);
  EXPECT_EQ(layout.segments_of(1, 4).first, 10);
  EXPECT_EQ(layout.segments_of(1, 4).count, 1);
  EXPECT_EQ(layout.segments_of(2, 1).count, 1);
  EXPECT_EQ(layout.segments_of(2, 2).count, 0);
  EXPECT_EQ(layout.rows(), 41);
  EXPECT_EQ(layout.first_row(3), 26);
  EXPECT_THAT(layout.block_offsets, ElementsAre(0, 11, 12, 12, 20));
}

TEST(PyramidLayoutTest, WidthOneIsThePlainLayout) {
  const PyramidLayout layout = make_pyramid_layout(kOffsets, std::vector<int>{1});
  EXPECT_EQ(layout.segments(), 7);
  EXPECT_EQ(layout.segment_rows_offsets, kOffsets);
  EXPECT_THAT(layout.bias, Each(0.0));
  for (int block = 0; block < 7; ++block) {
    EXPECT_EQ(layout.segments_of(block, 1).first, block);
    EXPECT_EQ(layout.segments_of(block, 1).count, 1);
  }
}

TEST(PyramidLayoutTest, ABlockHasTheSameSegmentsInEveryPart) {
  const PyramidLayout whole = make_pyramid_layout(kOffsets, kWidths);
  const PyramidLayout part = make_pyramid_layout(std::span(kOffsets).subspan(2, 4), kWidths);
  for (int block = 0; block < 3; ++block) {
    for (int level = 1; level <= 4; ++level) {
      const SegmentRange in_part = part.segments_of(block, level);
      const SegmentRange in_whole = whole.segments_of(block + 2, level);
      EXPECT_EQ(in_part.count, in_whole.count);
      EXPECT_EQ(in_part.first + whole.first_segment[2], in_whole.first);
    }
  }
  for (int s = 0; s < part.segments(); ++s) {
    EXPECT_EQ(part.bias[s], whole.bias[s + whole.first_segment[2]]);
    EXPECT_EQ(part.segment_rows_offsets[s] + whole.first_row(2),
              whole.segment_rows_offsets[s + whole.first_segment[2]]);
  }
}

TEST(PyramidLayoutTest, BadWidthsAreBugs) {
  for (const auto& widths : std::vector<std::vector<int>>{{}, {2, 4}, {1, 2, 2}, {1, 4, 2}}) {
    EXPECT_THROW(make_pyramid_layout(kOffsets, widths), InternalError);
  }
}

// Tokens [first, first + count) that every extended row stands for, from the layout's description.
std::vector<std::pair<int64_t, int64_t>> row_tokens(const PyramidLayout& layout) {
  std::vector<std::pair<int64_t, int64_t>> rows;
  for (int block = 0; block < layout.blocks(); ++block) {
    for (const int64_t width : layout.widths) {
      for (int64_t token = layout.block_offsets[block]; token < layout.block_offsets[block + 1];
           token += width) {
        rows.emplace_back(token, std::min(width, layout.block_offsets[block + 1] - token));
      }
    }
  }
  return rows;
}

template <class T>
class PyramidTest : public testing::Test {};
using ElementTypes = testing::Types<double, float, BFloat16>;
TYPED_TEST_SUITE(PyramidTest, ElementTypes);

TYPED_TEST(PyramidTest, RowsAreMeansOfTokens) {
  using T = TypeParam;
  using A = Accumulator<T>;
  const int batch = 2, heads = 3;
  const PyramidLayout layout = make_pyramid_layout(kOffsets, kWidths);
  const auto tokens = row_tokens(layout);
  ASSERT_EQ(static_cast<int64_t>(tokens.size()), layout.rows());
  for (const int dim : {64, 19}) {
    Guarded<T> x(batch, layout.tokens(), heads, dim);
    const auto values = normal_values<T>(batch * layout.tokens() * heads * dim, 1);
    x.fill([&](int64_t i) { return values[i]; });
    for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
      const IsaLimit limit(isa);
      for (const int threads : {1, 3}) {
        Guarded<T> extended(batch, layout.rows(), heads, dim);
        expand_pyramid<T>(x.const_view(), layout, batch, heads, dim, extended.view(), threads);
        EXPECT_TRUE(extended.gaps_are_intact());
        for (int b = 0; b < batch; ++b) {
          for (int64_t row = 0; row < layout.rows(); ++row) {
            for (int h = 0; h < heads; ++h) {
              for (int d = 0; d < dim; ++d) {
                const auto [first, count] = tokens[row];
                A sum = 0;
                for (int64_t i = 0; i < count; ++i) sum += static_cast<A>(x.at(b, first + i, h, d));
                const T mean = T(sum / static_cast<A>(count));
                ASSERT_EQ(static_cast<A>(extended.at(b, row, h, d)), static_cast<A>(mean)) << row;
              }
            }
          }
        }
      }
    }
  }
}

TYPED_TEST(PyramidTest, GradientAddsTheShareOfEveryLevel) {
  using T = TypeParam;
  using A = Accumulator<T>;
  const int batch = 2, heads = 2, dim = 21;
  const PyramidLayout layout = make_pyramid_layout(kOffsets, kWidths);
  const auto tokens = row_tokens(layout);
  Guarded<A> gradient(batch, layout.rows(), heads, dim);
  const auto values = normal_values<A>(batch * layout.rows() * heads * dim, 2);
  gradient.fill([&](int64_t i) { return values[i]; });
  for (const int threads : {1, 3}) {
    Guarded<A> dx(batch, layout.tokens(), heads, dim), expected(batch, layout.tokens(), heads, dim);
    dx.fill([](int64_t) { return A(1); });
    expected.fill([](int64_t) { return A(1); });
    add_pyramid_gradient<T>(gradient.const_view(), layout, batch, heads, dim, dx.view(), threads);
    for (int64_t row = 0; row < layout.rows(); ++row) {
      const auto [first, count] = tokens[row];
      for (int64_t i = first; i < first + count; ++i) {
        for (int b = 0; b < batch; ++b) {
          for (int h = 0; h < heads; ++h) {
            for (int d = 0; d < dim; ++d) {
              expected.at(b, i, h, d) += gradient.at(b, row, h, d) / static_cast<A>(count);
            }
          }
        }
      }
    }
    EXPECT_EQ(dx.data, expected.data);
  }
}

// sum of f(x) * weight, for a map f of one [rows, dim] sample.
template <class Map>
double weighted(const std::vector<double>& weight, Map map) {
  const std::vector<double> y = map();
  double sum = 0;
  for (size_t i = 0; i < y.size(); ++i) sum += y[i] * weight[i];
  return sum;
}

TEST(PyramidGradientTest, EqualsFiniteDifferences) {
  const int dim = 3;
  const PyramidLayout layout = make_pyramid_layout(std::vector<int64_t>{0, 1, 4, 11, 19}, kWidths);
  auto x = normal_values<double>(layout.tokens() * dim, 3);
  const auto weight = normal_values<double>(layout.rows() * dim, 4);
  const auto expand = [&] {
    std::vector<double> extended(layout.rows() * dim);
    expand_pyramid<double>(contiguous_view<const double>(x.data(), layout.tokens(), 1, dim), layout,
                           1, 1, dim, contiguous_view(extended.data(), layout.rows(), 1, dim), 1);
    return extended;
  };
  std::vector<double> dx(x.size(), 0);
  add_pyramid_gradient<double>(contiguous_view<const double>(weight.data(), layout.rows(), 1, dim),
                               layout, 1, 1, dim,
                               contiguous_view(dx.data(), layout.tokens(), 1, dim), 1);
  const double h = 0.5;  // the map is linear: rounding alone, 1e-16 * sum of sizes
  for (size_t i = 0; i < x.size(); ++i) {
    const double kept = x[i];
    x[i] = kept + h;
    const double above = weighted(weight, expand);
    x[i] = kept - h;
    const double below = weighted(weight, expand);
    x[i] = kept;
    EXPECT_NEAR(dx[i], (above - below) / (2 * h), 1e-12);
  }
}

// ---- global tokens ----

TEST(GlobalTokensTest, GroupsSegmentsAndBlocks) {
  const std::vector<int64_t> offsets{100, 112, 112, 124, 134};
  const GlobalTokens global = make_global_tokens(offsets, 5, 4, 3, false);
  EXPECT_EQ(global.tokens, 34);
  EXPECT_EQ(global.groups(), 9);
  EXPECT_EQ(global.tokens_of(7), 4);
  EXPECT_EQ(global.tokens_of(8), 2);
  const double four = std::log(4.0), two = std::log(2.0);
  EXPECT_THAT(global.segments,
              ElementsAre(GlobalSegment{0, 3, -1, four}, GlobalSegment{3, 3, -1, four},
                          GlobalSegment{6, 2, -1, four}, GlobalSegment{8, 1, -1, two}));
  EXPECT_THAT(make_global_tokens(offsets, 5, 4, 100, true).segments,
              ElementsAre(GlobalSegment{0, 3, 5, four}, GlobalSegment{3, 3, 7, four},
                          GlobalSegment{6, 2, 8, four}, GlobalSegment{8, 1, 8, two}));
  const GlobalTokens straddling = make_global_tokens(offsets, 0, 5, 100, false);
  EXPECT_THAT(straddling.segments,
              ElementsAre(GlobalSegment{0, 6, -1, std::log(5.0)}, GlobalSegment{6, 1, -1, four}));
  EXPECT_EQ(make_global_tokens(std::vector<int64_t>{7}, 0, 4, 3, true).groups(), 0);
}

TEST(GlobalTokensTest, LeavingOutSelectedBlocksNeedsGroupsInsideBlocks) {
  try {
    make_global_tokens(std::vector<int64_t>{0, 128, 256}, 0, 30, 64, true);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("group 4 (tokens 120 to 149) crosses the border at token 128"));
  }
}

TEST(GlobalTokensTest, RangesOfTouchedGroups) {
  const GlobalTokens global = make_global_tokens(std::vector<int64_t>{0, 34}, 0, 4, 64, false);
  const auto range = [&](int64_t first, int64_t count) {
    const GroupRange r = groups_of(global, first, count);
    return std::pair(r.first, r.count);
  };
  EXPECT_EQ(range(0, 34), std::pair(int64_t{0}, int64_t{9}));
  EXPECT_EQ(range(3, 1), std::pair(int64_t{0}, int64_t{1}));
  EXPECT_EQ(range(3, 2), std::pair(int64_t{0}, int64_t{2}));
  EXPECT_EQ(range(33, 1), std::pair(int64_t{8}, int64_t{1}));
  EXPECT_EQ(range(34, 0).second, 0);
  EXPECT_THROW(range(30, 5), InternalError);
}

TYPED_TEST(PyramidTest, PartialGroupMeansAddUpToTheMeans) {
  using T = TypeParam;
  using A = Accumulator<T>;
  const int batch = 2, heads = 2, dim = 19, tokens = 67;
  const GlobalTokens global =
      make_global_tokens(std::vector<int64_t>{0, 40, tokens}, 0, 7, 64, false);
  Guarded<T> x(batch, tokens, heads, dim);
  const auto values = normal_values<T>(batch * tokens * heads * dim, 5);
  x.fill([&](int64_t i) { return values[i]; });
  Guarded<A> gradient(batch, global.groups(), heads, dim);
  const auto weights = normal_values<A>(batch * global.groups() * heads * dim, 6);
  gradient.fill([&](int64_t i) { return weights[i]; });
  const A unit = std::is_same_v<A, double> ? 0x1p-53 : 0x1p-24;
  for (const auto& cuts :
       std::vector<std::vector<int>>{{0, 67}, {0, 7, 67}, {0, 3, 5, 5, 33, 66, 67}}) {
    std::vector<double> sums(batch * global.groups() * heads * dim, 0);
    for (size_t part = 0; part + 1 < cuts.size(); ++part) {
      const int first = cuts[part], count = cuts[part + 1] - first;
      const GroupRange range = groups_of(global, first, count);
      HeadView<const T> own = x.const_view();
      own.data += first * own.row_stride;
      Guarded<A> partial(batch, range.count, heads, dim), again(batch, range.count, heads, dim);
      partial_group_means<T>(own, global, first, count, batch, heads, dim, partial.view(), 1);
      partial_group_means<T>(own, global, first, count, batch, heads, dim, again.view(), 3);
      EXPECT_EQ(partial.data, again.data);
      EXPECT_TRUE(partial.gaps_are_intact());
      Guarded<A> dx(batch, count, heads, dim);
      dx.fill([](int64_t) { return A(2); });
      HeadView<const A> d_groups = gradient.const_view();
      d_groups.data += range.first * d_groups.row_stride;
      add_group_gradient<A>(d_groups, global, first, count, batch, heads, dim, dx.view(), 2);
      EXPECT_TRUE(dx.gaps_are_intact());
      for (int b = 0; b < batch; ++b) {
        for (int h = 0; h < heads; ++h) {
          for (int d = 0; d < dim; ++d) {
            for (int64_t g = 0; g < range.count; ++g) {
              sums[((b * global.groups() + range.first + g) * heads + h) * dim + d] +=
                  partial.at(b, g, h, d);
            }
            for (int row = 0; row < count; ++row) {
              const int64_t g = (first + row) / 7;
              ASSERT_EQ(dx.at(b, row, h, d),
                        A(2) + gradient.at(b, g, h, d) / static_cast<A>(global.tokens_of(g)));
            }
          }
        }
      }
    }
    for (int b = 0; b < batch; ++b) {
      for (int64_t g = 0; g < global.groups(); ++g) {
        for (int h = 0; h < heads; ++h) {
          for (int d = 0; d < dim; ++d) {
            double sum = 0, size = 0;
            for (int64_t i = 0; i < global.tokens_of(g); ++i) {
              const double value = static_cast<A>(x.at(b, g * 7 + i, h, d));
              sum += value;
              size += std::abs(value);
            }
            const double n = static_cast<double>(global.tokens_of(g));
            EXPECT_NEAR(sums[((b * global.groups() + g) * heads + h) * dim + d], sum / n,
                        9 * unit * size / n);
          }
        }
      }
    }
  }
}

TEST(GlobalTokensTest, GradientEqualsFiniteDifferences) {
  const int dim = 2, tokens = 11;
  const GlobalTokens global = make_global_tokens(std::vector<int64_t>{0, tokens}, 0, 4, 64, false);
  auto x = normal_values<double>(tokens * dim, 7);
  const auto weight = normal_values<double>(global.groups() * dim, 8);
  const auto pool = [&] {
    std::vector<double> means(global.groups() * dim);
    partial_group_means<double>(contiguous_view<const double>(x.data(), tokens, 1, dim), global, 0,
                                tokens, 1, 1, dim,
                                contiguous_view(means.data(), global.groups(), 1, dim), 1);
    return means;
  };
  std::vector<double> dx(x.size(), 0);
  add_group_gradient<double>(contiguous_view<const double>(weight.data(), global.groups(), 1, dim),
                             global, 0, tokens, 1, 1, dim,
                             contiguous_view(dx.data(), tokens, 1, dim), 1);
  for (size_t i = 0; i < x.size(); ++i) {
    const double kept = x[i];
    x[i] = kept + 0.5;
    const double above = weighted(weight, pool);
    x[i] = kept - 0.5;
    const double below = weighted(weight, pool);
    x[i] = kept;
    EXPECT_NEAR(dx[i], above - below, 1e-13);
  }
}

TEST(GlobalTableTest, EverySegmentOrOnlyThoseOfBlocksNotSelected) {
  const GlobalTokens global =
      make_global_tokens(std::vector<int64_t>{0, 8, 16, 22}, 1, 4, 64, true);
  ASSERT_EQ(global.segments.size(), 4u);  // blocks 1, 2, 3 and the short group of block 3
  const SegmentTable selected{2, 1, 2, 4, {0, 2, 2, 6, 7}, {0, 2, 0, 1, 2, 3, 3}};
  EXPECT_EQ(global_table(selected, global, false, 2), make_dense_table(2, 1, 2, 4));
  for (const int threads : {1, 3}) {
    const SegmentTable rest = global_table(selected, global, true, threads);
    EXPECT_EQ(rest, (SegmentTable{2, 1, 2, 4, {0, 3, 7, 7, 9}, {0, 2, 3, 0, 1, 2, 3, 0, 1}}));
  }
  const SegmentTable no_rows{1, 0, 2, 4, {0}, {}};
  EXPECT_THAT(global_table(no_rows, global, true, 2).row_offsets, ElementsAre(0));
  const GlobalTokens loose =
      make_global_tokens(std::vector<int64_t>{0, 8, 16, 22}, 1, 4, 64, false);
  EXPECT_THROW(global_table(selected, loose, true, 1), InternalError);
}

}  // namespace
}  // namespace sprocket::kernels

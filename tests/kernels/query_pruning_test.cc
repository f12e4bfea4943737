#include "kernels/query_pruning.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/block_pooling.h"
#include "kernels/isa.h"

namespace sprocket::kernels {
namespace {

using testing::ElementsAre;

struct IsaLimit {
  explicit IsaLimit(Isa isa) { limit_isa(isa); }
  ~IsaLimit() { limit_isa(Isa::kAvx512); }
};

template <class T>
double to_double(T value) {
  if constexpr (std::is_same_v<T, BFloat16>)
    return static_cast<float>(value);
  else
    return value;
}

template <class T>
bool same_bits(T a, T b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

// [B, rows, H, D] whose heads lie apart, between guards that nobody may write.
template <class T>
class Guarded {
 public:
  Guarded(int64_t batch, int64_t rows, int64_t heads, int64_t head_dim)
      : batch_(batch), rows_(rows), heads_(heads), dim_(head_dim), width_(head_dim + 3) {
    values_.assign(2 * kMargin + batch * rows * heads * width_, T(kGuard));
  }
  // Element i of the stream in the order of a contiguous tensor.
  void fill(uint64_t sample) {
    std::vector<float> normal(batch_ * rows_ * heads_ * dim_);
    RandomStream(11, 0, sample, RandomPurpose::kTest).normal(normal);
    for_each([&](T& value, int64_t index) { value = T(normal[index]); });
  }
  void fill_with(float number) {
    for_each([&](T& value, int64_t) { value = T(number); });
  }
  HeadView<T> view() {
    return {values_.data() + kMargin, rows_ * heads_ * width_, heads_ * width_, width_};
  }
  HeadView<const T> read() const {
    return {values_.data() + kMargin, rows_ * heads_ * width_, heads_ * width_, width_};
  }
  bool guards_intact() const {
    Guarded copy = *this;
    copy.fill_with(kGuard);
    return std::all_of(copy.values_.begin(), copy.values_.end(),
                       [](T value) { return same_bits(value, T(kGuard)); });
  }
  bool operator==(const Guarded& other) const {
    return values_.size() == other.values_.size() &&
           std::memcmp(values_.data(), other.values_.data(), values_.size() * sizeof(T)) == 0;
  }

 private:
  static constexpr int64_t kMargin = 64;
  static constexpr float kGuard = -7777;

  template <class Body>
  void for_each(Body body) {
    int64_t index = 0;
    for (int64_t row = 0; row < batch_ * rows_ * heads_; ++row) {
      for (int64_t d = 0; d < dim_; ++d) body(values_[kMargin + row * width_ + d], index++);
    }
  }

  int64_t batch_, rows_, heads_, dim_, width_;
  std::vector<T> values_;
};

std::vector<TokenPosition> box_positions(TokenPosition origin, TokenPosition extent, int count) {
  std::vector<TokenPosition> positions;
  for (int t = 0; t < extent[0]; ++t) {
    for (int h = 0; h < extent[1]; ++h) {
      for (int w = 0; w < extent[2]; ++w) {
        if (static_cast<int>(positions.size()) < count) {
          positions.push_back({origin[0] + t, origin[1] + h, origin[2] + w});
        }
      }
    }
  }
  return positions;
}

struct Layout {
  std::vector<int64_t> offsets{0};
  std::vector<TokenPosition> positions;
  void add(const std::vector<TokenPosition>& block) {
    positions.insert(positions.end(), block.begin(), block.end());
    offsets.push_back(static_cast<int64_t>(positions.size()));
  }
  int64_t tokens() const { return offsets.back(); }
  int blocks() const { return static_cast<int>(offsets.size()) - 1; }
};

Layout mixed_layout() {
  Layout layout;
  layout.add(box_positions({0, 0, 0}, {4, 4, 4}, 64));
  layout.add(box_positions({0, 0, 4}, {1, 1, 1}, 1));
  layout.add(box_positions({0, 4, 0}, {1, 1, 2}, 2));
  layout.add({});
  layout.add(box_positions({4, 8, 12}, {4, 4, 4}, 63));
  layout.add(box_positions({9, 1, 5}, {3, 2, 4}, 24));
  layout.add(box_positions({9, 5, 5}, {1, 4, 4}, 16));
  return layout;
}

// The definition, block by block, written without regard to speed.
struct NaiveBlock {
  std::vector<int> kept;
  std::vector<int> source;  // index into kept
  bool redundant = false;
};

double cosine(const std::vector<double>& a, const std::vector<double>& b) {
  double dot = 0, aa = 0, bb = 0;
  for (size_t d = 0; d < a.size(); ++d) {
    dot += a[d] * b[d];
    aa += a[d] * a[d];
    bb += b[d] * b[d];
  }
  return aa == 0 || bb == 0 ? 0 : dot / std::sqrt(aa * bb);
}

int64_t squared_distance(TokenPosition a, TokenPosition b) {
  int64_t sum = 0;
  for (int axis = 0; axis < 3; ++axis) sum += int64_t{a[axis] - b[axis]} * (a[axis] - b[axis]);
  return sum;
}

int naive_centre(const std::vector<TokenPosition>& positions, const std::vector<int>& members,
                 PruningCentre rule) {
  if (rule == PruningCentre::kPackedMiddle) return members[members.size() / 2];
  TokenPosition middle{};  // twice the middle
  for (int axis = 0; axis < 3; ++axis) {
    int low = positions[members[0]][axis], high = low;
    for (int m : members) low = std::min(low, positions[m][axis]);
    for (int m : members) high = std::max(high, positions[m][axis]);
    middle[axis] = low + high;
  }
  int best = members[0];
  for (int m : members) {
    const auto distance = [&](int token) {
      const TokenPosition p = positions[token];
      return squared_distance({2 * p[0], 2 * p[1], 2 * p[2]}, middle);
    };
    if (distance(m) < distance(best)) best = m;
  }
  return best;
}

NaiveBlock naive_block(const std::vector<std::vector<double>>& x,
                       const std::vector<TokenPosition>& positions, const PruningSpec& spec) {
  const int n = static_cast<int>(x.size());
  NaiveBlock result;
  Decimal ratio = spec.keep_ratio;
  if (spec.redundancy_threshold) {
    double sum = 0;
    int pairs = 0;
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        const TokenPosition p = positions[i];
        if (positions[j] == TokenPosition{p[0] - 1, p[1], p[2]}) {
          sum += cosine(x[i], x[j]);
          ++pairs;
        }
      }
    }
    result.redundant = pairs > 0 && sum / pairs > *spec.redundancy_threshold;
    if (result.redundant) ratio = spec.redundant_keep_ratio;
  }
  TokenPosition low{};
  for (int axis = 0; axis < 3; ++axis) {
    low[axis] = n > 0 ? positions[0][axis] : 0;
    for (const TokenPosition& p : positions) low[axis] = std::min(low[axis], p[axis]);
  }
  std::map<TokenPosition, std::vector<int>> windows;
  for (int i = 0; i < n; ++i) {
    TokenPosition id{};
    for (int axis = 0; axis < 3; ++axis) {
      if (spec.window[axis]) id[axis] = (positions[i][axis] - low[axis]) / spec.window[axis];
    }
    windows[id].push_back(i);
  }
  for (const auto& [id, members] : windows) {
    const int centre = naive_centre(positions, members, spec.centre);
    std::vector<std::pair<double, int>> ranked;
    for (int m : members) ranked.push_back({cosine(x[m], x[centre]), m});
    std::sort(ranked.begin(), ranked.end());
    const int64_t count = std::max<int64_t>(1, ratio.floor_times(members.size()));
    for (int64_t i = 0; i < count; ++i) result.kept.push_back(ranked[i].second);
  }
  std::sort(result.kept.begin(), result.kept.end());
  for (int i = 0; i < n; ++i) {
    int best = 0;
    for (size_t j = 0; j < result.kept.size(); ++j) {
      const auto cost = [&](int k) {
        return spec.recovery == PruningRecovery::kNearestPosition
                   ? squared_distance(positions[i], positions[result.kept[k]])
                   : int64_t{std::abs(i - result.kept[k])};
      };
      if (cost(static_cast<int>(j)) < cost(best)) best = static_cast<int>(j);
    }
    result.source.push_back(best);
  }
  return result;
}

template <class T>
class QueryPruningTest : public testing::Test {
 protected:
  static constexpr int kBatch = 2, kHeads = 3, kDim = 24;

  QueryPruning prune(const Guarded<T>& q, const Layout& layout, const PruningSpec& spec,
                     int exempt = 0, int threads = 1) {
    return prune_queries<T>(q.read(), layout.offsets, layout.positions, kBatch, kHeads, kDim, spec,
                            exempt, threads);
  }
  Guarded<T> queries(const Layout& layout) {
    Guarded<T> q(kBatch, layout.tokens(), kHeads, kDim);
    q.fill(1);
    return q;
  }
  // Head 0 hardly changes from frame to frame.
  Guarded<T> half_redundant_queries(const Layout& layout) {
    Guarded<T> q = queries(layout);
    std::map<std::pair<int, int>, int64_t> first;
    for (int64_t i = 0; i < layout.tokens(); ++i) {
      const auto [t, h, w] = layout.positions[i];
      const int64_t from = first.emplace(std::pair{h, w}, i).first->second;
      for (int b = 0; b < kBatch; ++b) {
        for (int d = 0; d < kDim; ++d) {
          const double own = to_double(q.read().row(b, i, 0)[d]);
          const double old = to_double(q.read().row(b, from, 0)[d]);
          q.view().row(b, i, 0)[d] = T(static_cast<float>(from == i ? own : old + 0.1 * own));
        }
      }
    }
    return q;
  }
};

using ElementTypes = testing::Types<double, float, BFloat16>;
TYPED_TEST_SUITE(QueryPruningTest, ElementTypes);

std::vector<PruningSpec> specs() {
  std::vector<PruningSpec> result;
  for (const char* ratio : {"0.5", "0.01", "0.9"}) {
    for (const auto centre : {PruningCentre::kPackedMiddle, PruningCentre::kGeometric}) {
      for (const auto recovery :
           {PruningRecovery::kNearestPosition, PruningRecovery::kNearestIndex}) {
        for (const auto& window :
             std::vector<std::array<int32_t, 3>>{{0, 0, 0}, {2, 2, 2}, {3, 0, 1}}) {
          for (const bool redundancy : {false, true}) {
            PruningSpec spec{Decimal::parse(ratio), centre, window, recovery, {}, {}};
            if (redundancy) {
              spec.redundancy_threshold = 0.5;
              spec.redundant_keep_ratio = Decimal::parse("0.01");
            }
            result.push_back(spec);
          }
        }
      }
    }
  }
  return result;
}

TYPED_TEST(QueryPruningTest, EqualsTheDefinition) {
  using T = TypeParam;
  const Layout layout = mixed_layout();
  const Guarded<T> q = this->half_redundant_queries(layout);
  int redundant = 0, fresh = 0;
  for (const PruningSpec& spec : specs()) {
    const QueryPruning pruning = this->prune(q, layout, spec);
    EXPECT_EQ(pruning, this->prune(q, layout, spec, 0, 3));
    EXPECT_FALSE(pruning.keeps_everything());
    PruningSpec plain = spec;
    plain.redundancy_threshold.reset();
    for (int bh = 0; bh < this->kBatch * this->kHeads; ++bh) {
      for (int block = 0; block < layout.blocks(); ++block) {
        const int64_t first = layout.offsets[block], last = layout.offsets[block + 1];
        std::vector<std::vector<double>> x;
        for (int64_t i = first; i < last; ++i) {
          const T* row = q.read().row(bh / this->kHeads, i, bh % this->kHeads);
          x.emplace_back();
          for (int d = 0; d < this->kDim; ++d) x.back().push_back(to_double(row[d]));
        }
        const std::vector<TokenPosition> positions(layout.positions.begin() + first,
                                                   layout.positions.begin() + last);
        const NaiveBlock expected = naive_block(x, positions, spec);
        (expected.redundant ? redundant : fresh) += 1;
        const int64_t begin = pruning.offsets[block], end = pruning.offsets[block + 1];
        EXPECT_EQ(end - begin, static_cast<int64_t>(naive_block(x, positions, plain).kept.size()));
        std::vector<int> kept(expected.kept);
        for (int& token : kept) token += static_cast<int>(first);
        ASSERT_EQ(pruning.rows[bh * layout.blocks() + block], static_cast<int>(kept.size()));
        kept.resize(end - begin, -1);
        const int32_t* row = pruning.kept.data() + bh * pruning.kept_rows();
        ASSERT_EQ(std::vector<int>(row + begin, row + end), kept);
        for (int64_t i = first; i < last; ++i) {
          ASSERT_EQ(pruning.source[bh * layout.tokens() + i], begin + expected.source[i - first]);
        }
      }
    }
  }
  EXPECT_GT(redundant, 0);
  EXPECT_GT(fresh, 0);
  EXPECT_TRUE(q.guards_intact());
}

TYPED_TEST(QueryPruningTest, IsTheSameOnEveryInstructionSet) {
  using T = TypeParam;
  const Layout layout = mixed_layout();
  const Guarded<T> q = this->queries(layout);
  const QueryPruning best = this->prune(q, layout, {});
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2}) {
    const IsaLimit limit(isa);
    EXPECT_EQ(this->prune(q, layout, {}), best);
  }
}

TYPED_TEST(QueryPruningTest, KeepRatioOneIsTheIdentity) {
  using T = TypeParam;
  using A = Accumulator<T>;
  const Layout layout = mixed_layout();
  const int64_t tokens = layout.tokens();
  const Guarded<T> q = this->queries(layout);
  PruningSpec spec;
  spec.keep_ratio = Decimal::ratio(1, 0);
  spec.window = {2, 2, 2};
  const QueryPruning pruning = this->prune(q, layout, spec);
  EXPECT_TRUE(pruning.keeps_everything());
  EXPECT_EQ(pruning.offsets, layout.offsets);
  std::vector<int32_t> identity;
  for (int bh = 0; bh < this->kBatch * this->kHeads; ++bh) {
    for (int32_t i = 0; i < tokens; ++i) identity.push_back(i);
  }
  EXPECT_EQ(pruning.kept, identity);
  EXPECT_EQ(pruning.source, identity);

  Guarded<T> kept(this->kBatch, tokens, this->kHeads, this->kDim), again = kept;
  gather_queries<T>(q.read(), pruning, this->kDim, kept.view(), 2);
  EXPECT_EQ(kept, q);
  recover_rows<T>(q.read(), pruning, this->kDim, again.view(), 2);
  EXPECT_EQ(again, q);
  again.fill_with(3);
  recover_rows_backward<T>(q.read(), pruning, this->kDim, again.view(), 2);
  EXPECT_EQ(again, q);
  std::vector<A> means(this->kBatch * this->kHeads * layout.blocks() * this->kDim, A(9));
  std::vector<A> pooled = means;
  kept_means<T>(kept.read(), pruning, this->kDim, means.data(), 2);
  pool_blocks<T>(q.read(), layout.offsets, this->kBatch, this->kHeads, this->kDim, pooled.data(),
                 1);
  EXPECT_EQ(means, pooled);
}

TYPED_TEST(QueryPruningTest, EqualTokensKeepTheSmallerIndices) {
  using T = TypeParam;
  Layout layout;
  layout.add(box_positions({0, 0, 0}, {4, 4, 4}, 64));
  Guarded<T> q = this->queries(layout);
  for (const float value : {1.5f, 0.0f}) {
    q.fill_with(value);
    const QueryPruning pruning = this->prune(q, layout, {});
    std::vector<int32_t> expected(32);
    std::iota(expected.begin(), expected.end(), 0);
    for (int bh = 0; bh < this->kBatch * this->kHeads; ++bh) {
      EXPECT_EQ(std::vector<int32_t>(pruning.kept.begin() + bh * 32,
                                     pruning.kept.begin() + (bh + 1) * 32),
                expected);
      // Token (3, 2, 1) lies nearest to (1, 2, 1), the last frame that is kept.
      EXPECT_EQ(pruning.source[bh * 64 + 3 * 16 + 2 * 4 + 1], 1 * 16 + 2 * 4 + 1);
    }
  }
}

TYPED_TEST(QueryPruningTest, ExemptBlocksKeepEverything) {
  using T = TypeParam;
  const Layout layout = mixed_layout();
  const Guarded<T> q = this->queries(layout);
  const QueryPruning pruning = this->prune(q, layout, {}, 3), plain = this->prune(q, layout, {});
  for (int block = 0; block < layout.blocks(); ++block) {
    const int64_t capacity = pruning.offsets[block + 1] - pruning.offsets[block];
    EXPECT_EQ(capacity, block < 3 ? layout.offsets[block + 1] - layout.offsets[block]
                                  : plain.offsets[block + 1] - plain.offsets[block]);
  }
  for (int32_t i = 0; i < layout.offsets[3]; ++i) {
    EXPECT_EQ(pruning.kept[i], i);
    EXPECT_EQ(pruning.source[i], i);
  }
}

TYPED_TEST(QueryPruningTest, MovesRowsAndAddsGradients) {
  using T = TypeParam;
  using A = Accumulator<T>;
  const Layout layout = mixed_layout();
  const int64_t tokens = layout.tokens();
  const Guarded<T> q = this->half_redundant_queries(layout);
  PruningSpec spec;
  spec.window = {2, 0, 2};
  spec.redundancy_threshold = 0.5;
  spec.redundant_keep_ratio = Decimal::parse("0.25");
  const QueryPruning pruning = this->prune(q, layout, spec);
  const int64_t rows = pruning.kept_rows();
  ASSERT_NE(std::count(pruning.kept.begin(), pruning.kept.end(), -1), 0);
  const auto make = [&](int64_t count) {
    return Guarded<T>(this->kBatch, count, this->kHeads, this->kDim);
  };
  Guarded<T> kept = make(rows), out = make(tokens), dout = make(tokens), dkept = make(rows);
  Guarded<A> dq(this->kBatch, tokens, this->kHeads, this->kDim);
  Guarded<A> dkept_q(this->kBatch, rows, this->kHeads, this->kDim);
  kept.fill_with(5);
  dkept.fill_with(5);
  dout.fill(2);
  dkept_q.fill(3);
  dq.fill_with(4);
  gather_queries<T>(q.read(), pruning, this->kDim, kept.view(), 1);
  recover_rows<T>(kept.read(), pruning, this->kDim, out.view(), 1);
  recover_rows_backward<T>(dout.read(), pruning, this->kDim, dkept.view(), 1);
  scatter_query_gradients<A>(dkept_q.read(), pruning, this->kDim, dq.view(), 1);
  std::vector<A> lse(this->kBatch * this->kHeads * rows),
      all_lse(this->kBatch * this->kHeads * tokens);
  std::iota(lse.begin(), lse.end(), A(0));
  recover_lse<A>(lse.data(), pruning, all_lse.data(), 2);
  std::vector<A> means(this->kBatch * this->kHeads * layout.blocks() * this->kDim, A(9));
  kept_means<T>(kept.read(), pruning, this->kDim, means.data(), 3);

  for (int bh = 0; bh < this->kBatch * this->kHeads; ++bh) {
    const int b = bh / this->kHeads, h = bh % this->kHeads;
    std::vector<int> row_of_token(tokens, -1);
    for (int64_t row = 0; row < rows; ++row) {
      const int32_t token = pruning.kept[bh * rows + row];
      if (token >= 0) row_of_token[token] = static_cast<int>(row);
      for (int d = 0; d < this->kDim; ++d) {
        const T expected = token < 0 ? T{} : q.read().row(b, token, h)[d];
        ASSERT_TRUE(same_bits(kept.read().row(b, row, h)[d], expected));
        A sum = 0;
        for (int64_t i = 0; i < tokens; ++i) {
          if (pruning.source[bh * tokens + i] == row) {
            sum += static_cast<A>(to_double(dout.read().row(b, i, h)[d]));
          }
        }
        ASSERT_TRUE(same_bits(dkept.read().row(b, row, h)[d], T(sum)));
      }
    }
    for (int64_t i = 0; i < tokens; ++i) {
      const int32_t source = pruning.source[bh * tokens + i];
      ASSERT_EQ(all_lse[bh * tokens + i], bh * rows + source);
      for (int d = 0; d < this->kDim; ++d) {
        ASSERT_TRUE(same_bits(out.read().row(b, i, h)[d], kept.read().row(b, source, h)[d]));
        const A gradient =
            row_of_token[i] < 0 ? A(4) : 4 + dkept_q.read().row(b, row_of_token[i], h)[d];
        ASSERT_EQ(dq.read().row(b, i, h)[d], gradient);
      }
    }
    for (int block = 0; block < layout.blocks(); ++block) {
      const int used = pruning.rows[bh * layout.blocks() + block];
      for (int d = 0; d < this->kDim; ++d) {
        A sum = 0;
        for (int64_t row = 0; row < used; ++row) {
          sum += static_cast<A>(to_double(kept.read().row(b, pruning.offsets[block] + row, h)[d]));
        }
        ASSERT_EQ(means[(bh * layout.blocks() + block) * this->kDim + d],
                  used == 0 ? A(0) : sum / static_cast<A>(used));
      }
    }
  }
  EXPECT_TRUE(q.guards_intact() && kept.guards_intact() && out.guards_intact());
  EXPECT_TRUE(dout.guards_intact() && dkept.guards_intact());
  EXPECT_TRUE(dq.guards_intact() && dkept_q.guards_intact());

  Guarded<T> threaded = make(rows);
  recover_rows_backward<T>(dout.read(), pruning, this->kDim, threaded.view(), 3);
  EXPECT_EQ(threaded, dkept);
}

TEST(RecoverRowsTest, BackwardEqualsFiniteDifferences) {
  Layout layout;
  layout.add(box_positions({0, 0, 0}, {2, 3, 3}, 17));
  layout.add(box_positions({2, 0, 0}, {1, 3, 3}, 9));
  const int dim = 3;
  Guarded<double> q(1, layout.tokens(), 1, dim), weight = q, out = q;
  q.fill(1);
  weight.fill(2);
  PruningSpec spec;
  spec.keep_ratio = Decimal::parse("0.3");
  const QueryPruning pruning =
      prune_queries<double>(q.read(), layout.offsets, layout.positions, 1, 1, dim, spec, 0, 1);
  Guarded<double> kept(1, pruning.kept_rows(), 1, dim), gradient = kept;
  kept.fill(3);
  const auto loss = [&] {
    recover_rows<double>(kept.read(), pruning, dim, out.view(), 1);
    double sum = 0;
    for (int64_t i = 0; i < layout.tokens(); ++i) {
      for (int d = 0; d < dim; ++d) {
        const double value = out.read().row(0, i, 0)[d];
        sum += weight.read().row(0, i, 0)[d] * value * value;
      }
    }
    return sum;
  };
  loss();
  Guarded<double> dout = out;
  for (int64_t i = 0; i < layout.tokens(); ++i) {
    for (int d = 0; d < dim; ++d) {
      dout.view().row(0, i, 0)[d] *= 2 * weight.read().row(0, i, 0)[d];
    }
  }
  recover_rows_backward<double>(dout.read(), pruning, dim, gradient.view(), 1);
  const double h = 1e-4;  // the loss is quadratic, so only rounding remains: 100 * 2^-53 / h
  for (int64_t row = 0; row < pruning.kept_rows(); ++row) {
    for (int d = 0; d < dim; ++d) {
      double& value = kept.view().row(0, row, 0)[d];
      const double at = value;
      value = at + h;
      const double above = loss();
      value = at - h;
      const double below = loss();
      value = at;
      EXPECT_NEAR(gradient.read().row(0, row, 0)[d], (above - below) / (2 * h), 1e-10);
    }
  }
}

// One batch, one head, contiguous fp32 rows.
QueryPruning prune_rows(const std::vector<float>& q, const Layout& layout, int dim,
                        const PruningSpec& spec) {
  return prune_queries<float>(contiguous_view(q.data(), layout.tokens(), 1, dim), layout.offsets,
                              layout.positions, 1, 1, dim, spec, 0, 1);
}

TEST(PruningRulesTest, CountsAreExactInDecimal) {
  Layout layout;
  layout.add(box_positions({0, 0, 0}, {1, 10, 10}, 100));
  PruningSpec spec;
  spec.keep_ratio = Decimal::parse("0.29");  // 0.29 * 100 is 28.999... in binary
  EXPECT_EQ(prune_rows(std::vector<float>(100, 1), layout, 1, spec).kept_rows(), 29);
  spec.keep_ratio = Decimal();
  EXPECT_EQ(prune_rows(std::vector<float>(100, 1), layout, 1, spec).kept_rows(), 1);
}

TEST(PruningRulesTest, TheTwoCentres) {
  Layout layout;
  layout.add(box_positions({5, 6, 7}, {4, 4, 4}, 64));
  std::vector<float> q(128);
  const int odd = 21;  // (1, 1, 1) of the cube, the first of the eight tokens nearest to its middle
  for (int i = 0; i < 64; ++i) q[2 * i + (i == odd)] = 1;
  PruningSpec spec;
  spec.keep_ratio = Decimal::parse("0.02");
  EXPECT_THAT(prune_rows(q, layout, 2, spec).kept, ElementsAre(odd));
  spec.centre = PruningCentre::kGeometric;
  EXPECT_THAT(prune_rows(q, layout, 2, spec).kept, ElementsAre(0));
  std::fill(q.begin(), q.end(), 0.0f);
  for (int i = 0; i < 64; ++i) q[2 * i + (i == 32)] = 1;
  EXPECT_THAT(prune_rows(q, layout, 2, spec).kept, ElementsAre(32));
  spec.centre = PruningCentre::kPackedMiddle;
  EXPECT_THAT(prune_rows(q, layout, 2, spec).kept, ElementsAre(0));
}

TEST(PruningRulesTest, ZerosAreUnlikeEverythingAndNanGoesFirst) {
  Layout layout;
  layout.add(box_positions({0, 0, 0}, {1, 1, 6}, 6));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> q{nan, 0,    // NaN
                             0,   0,    // 0
                             -1,  0,    // -1
                             2,   0,    // the centre, 1
                             1,   1,    // 0.7
                             -0., 0.};  // 0
  const auto kept = [&](const char* ratio) {
    PruningSpec spec;
    spec.keep_ratio = Decimal::parse(ratio);
    return prune_rows(q, layout, 2, spec).kept;
  };
  EXPECT_THAT(kept("0.17"), ElementsAre(2));
  EXPECT_THAT(kept("0.34"), ElementsAre(1, 2));
  EXPECT_THAT(kept("0.5"), ElementsAre(1, 2, 5));
  EXPECT_THAT(kept("0.7"), ElementsAre(1, 2, 4, 5));
  EXPECT_THAT(kept("0.9"), ElementsAre(1, 2, 3, 4, 5));
}

TEST(PruningRulesTest, EverythingIsAlikeToAZeroCentre) {
  Layout layout;
  layout.add(box_positions({0, 0, 0}, {1, 1, 4}, 4));
  EXPECT_THAT(prune_rows({5, -5, 0, 0}, layout, 1, {}).kept, ElementsAre(0, 1));
}

TEST(PruningRulesTest, RecoveryCrossesWindowsAndTiesGoToTheSmallerIndex) {
  Layout layout;  // windows of tokens {0, 1, 2} and {3, 4, 5}
  layout.add(box_positions({0, 0, 0}, {1, 1, 6}, 6));
  PruningSpec spec;
  spec.window = {0, 0, 3};
  spec.keep_ratio = Decimal::parse("0.34");
  const std::vector<float> q{-1, 1, 1, -1, 1, 1};  // 0 and 3 are unlike their centres 1 and 4
  for (const auto recovery : {PruningRecovery::kNearestPosition, PruningRecovery::kNearestIndex}) {
    spec.recovery = recovery;
    const QueryPruning pruning = prune_rows(q, layout, 1, spec);
    EXPECT_THAT(pruning.kept, ElementsAre(0, 3));
    EXPECT_THAT(pruning.source, ElementsAre(0, 0, 1, 1, 1, 1));
  }
  layout.positions = {{0, 0, 0}, {0, 0, 2}, {0, 0, 1}, {0, 0, 3}, {0, 0, 4}, {0, 0, 5}};
  spec.window = {0, 0, 0};
  spec.recovery = PruningRecovery::kNearestPosition;
  const QueryPruning pruning = prune_rows({-1, -1, 1, 1, 1, 1}, layout, 1, spec);
  EXPECT_THAT(pruning.kept, ElementsAre(0, 1));
  EXPECT_THAT(pruning.source, ElementsAre(0, 1, 0, 1, 1, 1));  // token 2 is 1 from both
}

TEST(PruningRulesTest, TokensAtOnePlaceCopyThemselvesWhenKept) {
  Layout layout;
  layout.add(std::vector<TokenPosition>(6, {1, 2, 3}));
  PruningSpec spec;
  const QueryPruning pruning = prune_rows({1, -1, 1, 1, -1, -1}, layout, 1, spec);
  EXPECT_THAT(pruning.kept, ElementsAre(1, 4, 5));  // like 1; centre 3 is 1
  EXPECT_THAT(pruning.source, ElementsAre(0, 0, 0, 0, 1, 2));
}

TEST(PruningRulesTest, RedundancyNeedsASecondFrameAndExceedsTheThreshold) {
  PruningSpec spec;
  spec.redundant_keep_ratio = Decimal::parse("0.25");
  const auto used = [&](TokenPosition extent, const std::vector<float>& q, double threshold) {
    Layout layout;
    layout.add(box_positions({3, 0, 0}, extent, 8));
    spec.redundancy_threshold = threshold;
    const QueryPruning pruning = prune_rows(q, layout, 1, spec);
    EXPECT_EQ(pruning.kept_rows(), 4);
    return pruning.rows[0];
  };
  const std::vector<float> same(8, 1), half{1, 1, 1, 1, 1, 1, 1, -1};
  EXPECT_EQ(used({2, 2, 2}, same, 0.99), 2);
  EXPECT_EQ(used({2, 2, 2}, same, 1), 4);
  EXPECT_EQ(used({2, 2, 2}, std::vector<float>(8, 2), 1), 4);
  EXPECT_EQ(used({1, 2, 4}, same, -1), 4);
  EXPECT_EQ(used({2, 2, 2}, half, 0.5), 4);  // (3 - 1) / 4 is not above
  EXPECT_EQ(used({2, 2, 2}, half, 0.49), 2);
  std::vector<float> broken = same;
  broken[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(used({2, 2, 2}, broken, -1), 4);
}

TEST(PruningRulesTest, CallsWithoutBlocksOrHeads) {
  const QueryPruning pruning = prune_rows({}, Layout{}, 4, {});
  EXPECT_TRUE(pruning.keeps_everything());
  EXPECT_EQ(pruning.query_blocks(), 0);
  EXPECT_EQ(pruning.kept_rows(), 0);
  const Layout layout = mixed_layout();
  const QueryPruning headless =
      prune_queries<float>({}, layout.offsets, layout.positions, 2, 0, 4, {}, 0, 2);
  EXPECT_TRUE(headless.source.empty());
  EXPECT_EQ(headless.offsets.back(), 32 + 1 + 1 + 31 + 12 + 8);
}

TEST(PruningRulesTest, NonsenseIsABug) {
  Layout layout;
  layout.add(box_positions({0, 0, 0}, {1, 1, 4}, 4));
  const std::vector<float> q(4, 1);
  PruningSpec spec;
  spec.keep_ratio = Decimal::parse("1.5");
  EXPECT_THROW(prune_rows(q, layout, 1, spec), InternalError);
  spec = {};
  spec.window = {0, -1, 0};
  EXPECT_THROW(prune_rows(q, layout, 1, spec), InternalError);
  spec = {};
  spec.redundancy_threshold = 0.5;
  spec.redundant_keep_ratio = Decimal::parse("0.6");
  EXPECT_THROW(prune_rows(q, layout, 1, spec), InternalError);
  layout.positions[3] = {0, 0, 1 << 14};
  EXPECT_THROW(prune_rows(q, layout, 1, {}), InternalError);
  layout.positions.pop_back();
  EXPECT_THROW(prune_rows(q, layout, 1, {}), InternalError);
}

}  // namespace
}  // namespace sprocket::kernels

#include "kernels/segment_attention.h"

#include <gtest/gtest.h>
#include <libxsmm.h>

#include <thread>

#include "kernels/isa.h"
#include "kernels/tile_ops.h"
#include "tests/kernels/segment_attention_fixture.h"

namespace sprocket::kernels {
namespace {

using testing::Case;
using testing::kInfinity;
using testing::Results;
using testing::Shape;

std::vector<Shape> shapes() {
  return {
      // The tuned case: whole blocks.
      {1, 2, 64, {64, 64, 64}, {64, 64, 64, 64}, 0.6},
      {1, 1, 128, {64, 64}, {64, 64, 64}, 1.0, false, 1, false},
      // Ragged blocks, blocks without rows, more rows than a tile, batch 2.
      {2, 3, 64, {64, 1, 33, 17}, {64, 7, 1, 63, 40, 0, 18}, 0.7},
      {1, 2, 32, {130, 5, 128}, {129, 3, 200, 64}, 0.9},
      // Head dimensions that are no multiple of a vector.
      {1, 2, 1, {64, 70, 20}, {64, 9, 70, 41}, 0.8},
      {2, 1, 40, {31, 64}, {16, 64, 32}, 0.8},
      {1, 1, 77, {20}, {33, 1, 65}, 1.0, false, 1, false},
      // Rows in pools that differ by head.
      {2, 2, 64, {64, 48, 9}, {64, 7, 33, 50}, 0.6, true},
      // Blocks of 128 rows, pooled ones of 16 and 32, remainders of one row.
      {1, 2, 64, {128, 64, 128}, {16, 32, 64, 128, 1, 1, 8, 16, 2}, 0.8},
      {1, 1, 128, {64, 128, 100, 64, 64, 64, 64, 64, 64, 64}, {64, 128, 1, 32}, 0.7},
      // Query blocks that use some of their rows.
      {1, 2, 64, {64, 64, 130, 33, 64}, {64, 64, 16, 5, 1}, 0.7, false, 1, true, true},
      {2, 1, 40, {64, 31, 128}, {64, 128}, 1.0, true, 1, false, true},
      // No keys, no queries.
      {1, 2, 64, {64, 5}, {}, 1.0},
      {1, 2, 64, {}, {64, 5}, 1.0},
      {1, 1, 64, {0, 64, 0}, {64}, 1.0, false, 1, false},
      // Peaked softmax.
      {1, 2, 64, {64, 50}, {64, 64, 31, 64}, 0.8, false, 16},
  };
}

std::string describe(const Shape& s) {
  return "head_dim " + std::to_string(s.head_dim) + ", " + std::to_string(s.query_rows.size()) +
         " query blocks, " + std::to_string(s.kv_rows.size()) + " KV blocks, batch " +
         std::to_string(s.batch) + ", logit scale " + std::to_string(s.logit_scale);
}

// Lowers the instruction set for a scope.
class LimitedIsa {
 public:
  explicit LimitedIsa(Isa isa) {
    libxsmm_init();  // its first use would undo the limit
    if (isa < detected_isa()) limit_isa(isa);
  }
  ~LimitedIsa() {
    limit_isa(detected_isa());
    libxsmm_set_target_archid(libxsmm_cpuid());
  }
};

// Visits every tensor of the results: name, ours, theirs.
template <class A, class B, class Visit>
void for_each_tensor(const Results<A>& a, const Results<B>& b, Visit visit) {
  visit("out", a.out, b.out);
  visit("lse", a.lse, b.lse);
  visit("delta", a.delta, b.delta);
  visit("dq", a.dq, b.dq);
  for (size_t i = 0; i < a.dk.size(); ++i) {
    visit("dk" + std::to_string(i), a.dk[i], b.dk[i]);
    visit("dv" + std::to_string(i), a.dv[i], b.dv[i]);
  }
}

template <class A>
void expect_identical(const Results<A>& a, const Results<A>& b) {
  for_each_tensor(a, b, [](const std::string& name, const auto& x, const auto& y) {
    EXPECT_TRUE(x == y) << name;
  });
}

// Largest difference over the largest magnitude; -inf must meet -inf.
template <class A, class B>
double distance(const std::vector<A>& a, const std::vector<B>& b) {
  double difference = 0, magnitude = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == A(-kInfinity) && b[i] == B(-kInfinity)) continue;
    const double gap = std::abs(double{a[i]} - double{b[i]});
    if (std::isnan(gap)) return kInfinity;
    difference = std::max(difference, gap);
    magnitude = std::max(magnitude, std::abs(double{b[i]}));
  }
  return magnitude == 0 ? difference : difference / magnitude;
}

void expect_equal(const Results<double>& ours, const Results<double>& theirs) {
  for_each_tensor(ours, theirs, [](const std::string& name, const auto& a, const auto& b) {
    EXPECT_LE(distance(a, b), 1e-12) << name;
  });
}

// Relative L2 error.
template <class A>
double error_of(const std::vector<A>& values, const std::vector<double>& exact) {
  double difference = 0, magnitude = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] == A(-kInfinity) && exact[i] == -kInfinity) continue;
    difference += std::pow(double{values[i]} - exact[i], 2);
    magnitude += std::pow(exact[i], 2);
  }
  return magnitude == 0 ? std::sqrt(difference) : std::sqrt(difference / magnitude);
}

// The error against fp64 is at most twice that of plain code of the same precision; an ulp where
// that code happens to be exact.
void expect_as_exact_as(const Results<float>& ours, const Results<float>& plain,
                        const Results<double>& exact) {
  std::vector<std::pair<std::string, double>> plain_errors;
  for_each_tensor(plain, exact, [&](const std::string& name, const auto& a, const auto& b) {
    plain_errors.emplace_back(name, error_of(a, b));
  });
  size_t i = 0;
  for_each_tensor(ours, exact, [&](const std::string& name, const auto& a, const auto& b) {
    EXPECT_LE(error_of(a, b), std::max(2 * plain_errors[i].second, 0x1p-23)) << name;
    ++i;
  });
}

TEST(SegmentAttention, Fp64EqualsAnExplicitSoftmax) {
  for (const Shape& shape : shapes()) {
    SCOPED_TRACE(describe(shape));
    const Case<double> c(shape);
    expect_equal(c.run(), c.reference());
  }
}

// Every instruction set that the processor has; LIBXSMM keeps the kernels it has made, so the
// narrower ones are only reached in a process of their own, which ctest gives each test.
class SegmentAttentionOn : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (GetParam() > detected_isa()) {
      GTEST_SKIP() << "this processor has no " << name_of(GetParam());
    }
  }
};

TEST_P(SegmentAttentionOn, Fp32IsAsExactAsPlainCode) {
  const LimitedIsa limited(GetParam());
  for (const Shape& shape : shapes()) {
    SCOPED_TRACE(describe(shape));
    const Case<float> c(shape);
    expect_as_exact_as(c.run(), c.reference<float>([](float x) { return x; }), c.reference());
  }
}

TEST_P(SegmentAttentionOn, Bf16IsAsExactAsPlainCode) {
  const LimitedIsa limited(GetParam());
  for (const Shape& shape : shapes()) {
    SCOPED_TRACE(describe(shape));
    const Case<BFloat16> c(shape);
    const auto round = [](float x) { return static_cast<float>(BFloat16(x)); };
    expect_as_exact_as(c.run(), c.reference<float>(round), c.reference());
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, SegmentAttentionOn,
                         ::testing::Values(Isa::kAvx512, Isa::kAvx2, Isa::kBaseline),
                         [](const auto& parameter) {
                           const std::string_view name = name_of(parameter.param);
                           std::string letters;
                           std::copy_if(name.begin(), name.end(), std::back_inserter(letters),
                                        [](unsigned char c) { return std::isalnum(c); });
                           return letters;
                         });

TEST(SegmentAttention, GradientsAreTheSlopesOfTheForward) {
  Case<double> c({1, 2, 5, {6, 4}, {5, 2, 7}, 0.9, false, 1, false});
  const auto loss = [&] {
    auto r = c.zeros();
    c.forward(r, c.table, false, 1);
    double sum = 0;
    for (size_t i = 0; i < r.out.size(); ++i) sum += r.out[i] * c.dout[i];
    return sum;
  };
  const Results<double> gradients = c.run();
  const auto expect_slopes = [&](const char* name, std::vector<double>& values,
                                 const std::vector<double>& gradient) {
    for (size_t i = 0; i < values.size(); ++i) {
      const double step = 1e-5, original = values[i];
      values[i] = original + step;
      const double above = loss();
      values[i] = original - step;
      const double below = loss();
      values[i] = original;
      // Central differences: step^2 for the third derivative, eps / step for the rounding.
      EXPECT_NEAR((above - below) / (2 * step), gradient[i], 1e-8) << name << " " << i;
    }
  };
  expect_slopes("q", c.q, gradients.dq);
  for (size_t i = 0; i < c.k.size(); ++i) {
    expect_slopes("k", c.k[i], gradients.dk[i]);
    expect_slopes("v", c.v[i], gradients.dv[i]);
  }
}

// The table's entries with kv_block % parts == part.
SegmentTable columns_of(const SegmentTable& table, int parts, int part) {
  SegmentTable result{table.batch, table.heads, table.query_blocks, table.kv_blocks, {0}, {}};
  for (int64_t row = 0; row < table.rows(); ++row) {
    for (int64_t i = table.row_offsets[row]; i < table.row_offsets[row + 1]; ++i) {
      if (table.kv_block[i] % parts == part) result.kv_block.push_back(table.kv_block[i]);
    }
    result.row_offsets.push_back(static_cast<int64_t>(result.kv_block.size()));
  }
  return result;
}

template <class T>
auto run_in_parts(const Case<T>& c, int parts) {
  auto r = c.zeros();
  for (int part = 0; part < parts; ++part) {
    c.forward(r, columns_of(c.table, parts, part), part > 0, 1);
  }
  c.find_delta(r, 1);
  for (int part = 0; part < parts; ++part) c.backward(r, columns_of(c.table, parts, part), 1);
  return r;
}

TEST(SegmentAttention, AUnionOfPartsIsOnePass) {
  for (const Shape& shape : shapes()) {
    SCOPED_TRACE(describe(shape));
    const Case<double> c64(shape);
    for (int parts : {2, 3}) expect_equal(run_in_parts(c64, parts), c64.reference());
    const Case<float> c32(shape);
    expect_as_exact_as(run_in_parts(c32, 2),
                       c32.template reference<float>([](float x) { return x; }), c32.reference());
    const Case<BFloat16> c16(shape);
    const auto round = [](float x) { return static_cast<float>(BFloat16(x)); };
    expect_as_exact_as(run_in_parts(c16, 2), c16.template reference<float>(round), c16.reference());
  }
}

template <class T>
class SegmentAttentionTypes : public ::testing::Test {};
using Types = ::testing::Types<double, float, BFloat16>;
TYPED_TEST_SUITE(SegmentAttentionTypes, Types);

TYPED_TEST(SegmentAttentionTypes, ResultsDoNotDependOnTheNumberOfThreads) {
  for (const Shape& shape : shapes()) {
    SCOPED_TRACE(describe(shape));
    const Case<TypeParam> c(shape);
    const auto one = c.run(1);
    for (int threads : {2, 3, 7}) expect_identical(c.run(threads), one);
  }
}

// Query blocks that list everything beside others that list next to nothing, columns likewise: the
// threads join heads, overtake and wait for each other in ever different ways.
TYPED_TEST(SegmentAttentionTypes, UnevenTablesDoNotDependOnTheNumberOfThreads) {
  constexpr int kBlocks = 40;
  for (int heads : {1, 3}) {
    Shape shape{1, heads, 32, std::vector<int>(kBlocks, 16), std::vector<int>(kBlocks, 16)};
    shape.logit_scale = 2;
    Case<TypeParam> c(shape);
    c.table.row_offsets = {0};
    c.table.kv_block.clear();
    for (int row = 0; row < heads * kBlocks; ++row) {
      for (int block = 0; block < kBlocks; ++block) {
        const bool full = row % 5 == 4 || block == 0 || block == 30;
        const bool listed = row % 7 != 6 && (full || (row * 11 + block * 17) % 29 == 0);
        if (listed) c.table.kv_block.push_back(block);
      }
      c.table.row_offsets.push_back(static_cast<int64_t>(c.table.kv_block.size()));
    }
    const auto one = c.run(1);
    if constexpr (std::is_same_v<TypeParam, double>) expect_equal(one, c.reference());
    for (int threads : {2, 2, 2, 3, 5, 16}) {
      SCOPED_TRACE(std::to_string(heads) + " heads, " + std::to_string(threads) + " threads");
      expect_identical(c.run(threads), one);
    }
  }
}

// So many keys that the backward goes over them in parts.
TEST(SegmentAttention, KeysBeyondTheCacheAreSummedInTheSameOrder) {
  Shape shape{1, 1, 64, {64, 40, 64}, std::vector<int>(270, 64), 0.9, false, 1, false};
  const Case<float> c(shape);
  const auto one = c.run(1);
  for (int threads : {2, 3}) expect_identical(c.run(threads), one);
  const auto exact = Case<double>(shape).run(2);
  for_each_tensor(one, exact, [](const std::string& name, const auto& a, const auto& b) {
    // Rounding of a sum of n terms grows like sqrt(n) / 2^24.
    EXPECT_LE(error_of(a, b), std::sqrt(270.0 * 64) * 0x1p-24) << name;
  });
}

TYPED_TEST(SegmentAttentionTypes, RowsThatTakeNoPartStayAsTheyWere) {
  Case<TypeParam> c({1, 2, 64, {64, 40}, {64, 33}, 1, false, 1, false});
  const auto all = c.run();
  c.query_rows = {40, 0, 64, 7};
  auto r = c.zeros();
  std::fill(r.out.begin(), r.out.end(), 7);
  std::fill(r.lse.begin(), r.lse.end(), 7);
  std::fill(r.dq.begin(), r.dq.end(), 7);
  auto accumulated = r;
  for (int head = 0; head < 2; ++head) {  // a former pass that met no keys
    for (int64_t row = 0; row < c.queries(); ++row) {
      accumulated.lse[head * c.queries() + row] = -kInfinity;
    }
  }
  c.forward(r, c.table, false, 2);
  c.forward(accumulated, c.table, true, 2);
  r.delta = all.delta;
  c.backward(r, c.table, 2);
  for (int64_t row = 0; row < c.queries(); ++row) {
    for (int head = 0; head < 2; ++head) {
      const int block = row < 64 ? 0 : 1;
      const bool used = row - c.query_offsets[block] < c.query_rows[head * 2 + block];
      SCOPED_TRACE("row " + std::to_string(row) + ", head " + std::to_string(head));
      const int64_t at = (row * 2 + head) * 64, index = head * c.queries() + row;
      EXPECT_EQ(r.lse[index], used ? all.lse[index] : -kInfinity);
      EXPECT_EQ(r.out[at], used ? all.out[at] : 0);
      EXPECT_EQ(accumulated.out[at], used ? all.out[at] : 7);
      if (!used) {
        EXPECT_EQ(r.dq[at], 7);
      }
    }
  }
}

TYPED_TEST(SegmentAttentionTypes, RangesOfHeadsAreTheWholeCallInParts) {
  Case<TypeParam> c({2, 3, 64, {64, 40}, {64, 33, 64}, 0.7, false, 1, false});
  for (int threads : {1, 3}) {
    const auto all = c.run(threads);
    auto parts = c.zeros();
    parts.delta = all.delta;
    for (const HeadRange& range : {HeadRange{1, 5}, HeadRange{5, 5}, HeadRange{5, 6}}) {
      c.computed_heads = range;
      c.forward(parts, c.table, true, threads);
      c.backward(parts, c.table, threads);
    }
    for (int64_t row = 0; row < c.queries(); ++row) {  // of the head that is left out
      EXPECT_EQ(parts.lse[row], -kInfinity);
      EXPECT_EQ(parts.out[row * c.row_size()], 0);
      EXPECT_EQ(parts.dq[row * c.row_size()], 0);
    }
    c.computed_heads = HeadRange{0, 1};
    c.forward(parts, c.table, true, threads);
    c.backward(parts, c.table, threads);
    expect_identical(parts, all);
    c.computed_heads.reset();
  }
}

TYPED_TEST(SegmentAttentionTypes, CallsFromSeveralThreadsDoNotDisturbEachOther) {
  const Case<TypeParam> c(shapes()[2]);
  const auto expected = c.run(1);
  std::vector<Results<Accumulator<TypeParam>>> results(3);
  std::vector<std::thread> threads;
  for (auto& result : results) threads.emplace_back([&] { result = c.run(2); });
  for (auto& thread : threads) thread.join();
  for (const auto& result : results) expect_identical(result, expected);
}

TYPED_TEST(SegmentAttentionTypes, RowsWithoutKeysAreZeroAndStayAsTheyWere) {
  Case<TypeParam> c(shapes()[2]);
  c.table.row_offsets.assign(c.table.row_offsets.size(), 0);
  c.table.kv_block.clear();
  auto r = c.zeros();
  std::fill(r.out.begin(), r.out.end(), 7);
  std::fill(r.lse.begin(), r.lse.end(), 7);
  auto continued = r;
  c.forward(continued, c.table, true, 2);
  expect_identical(continued, r);
  c.forward(r, c.table, false, 2);
  c.find_delta(r, 2);
  c.backward(r, c.table, 2);
  expect_identical(r, c.zeros());
}

TYPED_TEST(SegmentAttentionTypes, APassInWhichNoBlockIsAvailableAddsNothing) {
  Case<TypeParam> c(shapes()[2]);
  for (KvBlock& block : c.map.blocks) block.rows = 0;
  for (int threads : {1, 3}) expect_identical(c.run(threads), c.zeros());
}

TYPED_TEST(SegmentAttentionTypes, GradientsAreAddedAndUnlistedBlocksAreNotTouched) {
  Case<TypeParam> c(shapes()[2]);
  c.table = columns_of(c.table, 2, 1);  // even blocks, all of buffer 0, are listed by nobody
  auto r = c.run();
  auto added = r;
  for (auto* tensor : {&added.dq, &added.dk[0], &added.dk[1], &added.dv[0], &added.dv[1]}) {
    std::fill(tensor->begin(), tensor->end(), 0.25f);
  }
  const auto before = added;
  c.backward(added, c.table, 1);
  EXPECT_EQ(added.dk[0], before.dk[0]);
  EXPECT_EQ(added.dv[0], before.dv[0]);
  for (size_t i = 0; i < r.dq.size(); ++i) EXPECT_NEAR(added.dq[i], r.dq[i] + 0.25, 1e-5);
  for (size_t i = 0; i < r.dk[1].size(); ++i) EXPECT_NEAR(added.dk[1][i], r.dk[1][i] + 0.25, 1e-5);
  EXPECT_TRUE(std::all_of(r.dk[0].begin(), r.dk[0].end(), [](auto x) { return x == 0; }));
  EXPECT_FALSE(std::all_of(r.dk[1].begin(), r.dk[1].end(), [](auto x) { return x == 0; }));
}

TYPED_TEST(SegmentAttentionTypes, LargeLogitsNeitherOverflowNorVanish) {
  // Blocks of one query: how far a later block's logits exceed the former differs from tile to
  // tile.
  Case<TypeParam> c({1, 1, 64, std::vector<int>(40, 1), {64, 1, 64, 64}, 1, false, 400, false});
  const auto r = c.run();
  const auto exact = c.reference();
  // One key takes all: every weight is 0 or 1 up to the logits' own rounding.
  for (size_t i = 0; i < r.lse.size(); ++i) {
    EXPECT_NEAR(r.lse[i], exact.lse[i], 1e-6 * std::abs(exact.lse[i]));
  }
  for (auto value : r.dq) EXPECT_TRUE(std::isfinite(value));
  EXPECT_LT(distance(r.out, exact.out), 0.01);
}

TYPED_TEST(SegmentAttentionTypes, ATokenThatIsNotANumberIsNotHidden) {
  Case<TypeParam> c({1, 1, 16, {20}, {20, 1, 20}, 1, false, 1, false});
  c.q[3] = TypeParam(std::numeric_limits<float>::quiet_NaN());
  const auto r = c.run();
  EXPECT_TRUE(std::isnan(r.out[0]));
  EXPECT_FALSE(std::isnan(r.out[16]));
}

TEST(SegmentAttention, AWorkspaceThatIsTooSmallIsRefused) {
  const Case<float> c(shapes()[0]);
  auto r = c.zeros();
  const auto kv = c.buffers();
  const auto problem = c.problem(kv, c.table, 1);
  std::vector<std::byte> workspace(segment_attention_workspace_bytes(problem, Direction::kForward) -
                                   1);
  EXPECT_THROW(segment_attention_forward<float>(problem, c.query_view(r.out.data()), r.lse.data(),
                                                false, workspace),
               std::exception);
}

// The formula of the header: what grows with the sequence is the packed copies of a head.
TEST(SegmentAttention, TheWorkspaceDoesNotGrowWithWhatTheTableLists) {
  const auto bytes = [](int blocks, double density, int heads, int threads, Direction direction) {
    const Case<float> c({1, heads, 64, std::vector<int>(blocks, 64), std::vector<int>(blocks, 64),
                         density, false, 1, false});
    const auto kv = c.buffers();
    return segment_attention_workspace_bytes(c.problem(kv, c.table, threads), direction);
  };
  for (Direction direction : {Direction::kForward, Direction::kBackward}) {
    EXPECT_EQ(bytes(16, 0.1, 2, 1, direction), bytes(16, 1, 2, 1, direction));
    EXPECT_EQ(bytes(16, 0.1, 2, 1, direction), bytes(16, 0.1, 4, 1, direction));
    const int64_t copies = direction == Direction::kForward ? 2 : 5;
    const int64_t rows = 16 * 64 * 64 * 4;
    const int64_t growth = bytes(32, 1, 1, 1, direction) - bytes(16, 1, 1, 1, direction);
    EXPECT_GE(growth, copies * rows);
    EXPECT_LE(growth, copies * rows + 16 * 128);
  }
}

TEST(SegmentAttention, RowsBeyondABlockAreRefused) {
  Case<float> c(shapes()[0]);
  auto r = c.zeros();
  c.query_rows.assign(c.table.rows(), 64);
  c.query_rows[1] = 65;
  EXPECT_THROW(c.forward(r, c.table, false, 1), std::exception);
}

TEST(SegmentAttention, ATableThatDoesNotFitIsRefused) {
  Case<float> c(shapes()[0]);
  auto r = c.zeros();
  c.table.kv_block[0] = c.table.kv_blocks;
  EXPECT_THROW(c.forward(r, c.table, false, 1), std::exception);
}

// Of several threads the first may find nothing left to do, so one has to be enough.
TYPED_TEST(SegmentAttentionTypes, TheCallersProgressIsCalledMeanwhile) {
  const Case<TypeParam> c({1, 2, 16, {64, 33, 130}, {64, 1, 100, 16}, 0.7});
  auto r = c.zeros();
  const auto kv = c.buffers();
  auto problem = c.problem(kv, c.table, 1);
  int calls = 0;
  problem.progress = {[](void* count) { ++*static_cast<int*>(count); }, &calls};
  std::vector<std::byte> workspace(segment_attention_workspace_bytes(problem, Direction::kForward));
  segment_attention_forward<TypeParam>(problem, c.query_view(r.out.data()), r.lse.data(), false,
                                       workspace);
  EXPECT_GT(calls, 2);  // both heads
}

}  // namespace
}  // namespace sprocket::kernels

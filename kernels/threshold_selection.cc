#include "kernels/threshold_selection.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <limits>
#include <numbers>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "kernels/block_pooling.h"
#include "kernels/block_selection.h"
#include "kernels/budgeted_rows.h"
#include "kernels/row_kernels.h"
#include "kernels/score_key.h"
#include "kernels/threshold_rule.h"

namespace sprocket::kernels {
namespace {

constexpr int kTileRows = 96;  // a multiple of the six rows that panel_product works on at once

SPROCKET_INLINE Lanes<double> load_doubles(const double* from) { return load(from); }
SPROCKET_INLINE Lanes<double> load_doubles(const float* from) {
  typedef float Half __attribute__((vector_size(32)));
  Half half;
  std::memcpy(&half, from, sizeof half);
  return __builtin_convertvector(half, Lanes<double>);
}

// sum of term(x[j]) in double; a term must be always_inline and take a vector or a scalar.
template <class A, class Term>
SPROCKET_INLINE double sum_of_terms(const A* x, int64_t count, Term term) {
  Lanes<double> sums{};
  int64_t j = 0;
  for (; j + kLanes<double> <= count; j += kLanes<double>) sums += term(load_doubles(x + j));
  double sum = sum_of_lanes<double>(sums);
  for (; j < count; ++j) sum += term(static_cast<double>(x[j]));
  return sum;
}
#define SPROCKET_TERM(...) \
  [=](auto x) __attribute__((always_inline)) { return __VA_ARGS__; }

struct Statistics {
  double mean = 0;  // relative to the first score
  double deviation = 0;
};

template <class A>
struct StatisticsKernel {
  SPROCKET_INLINE static void run(const A* s, int64_t count, Statistics* result) {
    const double origin = s[0];
    const double mean =
        sum_of_terms(s, count, SPROCKET_TERM(x - origin)) / static_cast<double>(count);
    const double squares =
        sum_of_terms(s, count, SPROCKET_TERM((x - origin - mean) * (x - origin - mean)));
    *result = {mean, std::sqrt(squares / static_cast<double>(count))};
  }
};

// The largest score that is not NaN, or -inf.
template <class A>
struct LargestKernel {
  SPROCKET_INLINE static void run(const A* s, int64_t count, A* result) {
    Lanes<A> values = broadcast(-std::numeric_limits<A>::infinity());
    int64_t j = 0;
    for (; j + kLanes<A> <= count; j += kLanes<A>) {
      const Lanes<A> x = load(s + j);
      values = x > values ? x : values;
    }
    A largest = largest_of_lanes<A>(values);
    for (; j < count; ++j) largest = s[j] > largest ? s[j] : largest;
    *result = largest;
  }
};

// e[j] = exp(s[j] - largest), 0 for NaN, and their sum.
template <class A>
struct ExpKernel {
  SPROCKET_INLINE static void run(const A* s, int64_t count, A largest, A* e, double* total) {
    for_each_vector<A>(count, SPROCKET_STEP({
                         const Lanes<A> value = exp_of_lanes(load(s + j, lanes) - largest);
                         store(e + j, value == value ? value : Lanes<A>{}, lanes);
                       }));
    *total = sum_of_terms(e, count, SPROCKET_TERM(x));
  }
};

// Buckets of mass_bucket.
template <class A>
struct BucketKernel {
  SPROCKET_INLINE static void run(const A* s, int64_t count, A largest, A buckets_per_unit,
                                  int32_t* bucket) {
    for (int64_t j = 0; j < count; ++j) bucket[j] = mass_bucket(s[j], largest, buckets_per_unit);
  }
};

template <class A>
struct OrderKernel {
  SPROCKET_INLINE static void run(const A* s, int64_t count, ValueBits<A>* ordered) {
    for (int64_t j = 0; j < count; ++j) ordered[j] = ordered_bits(s[j]);
  }
};

// The rule on one row of scores of at most `blocks` video blocks; keeps its buffers between rows.
// Of fewer scores, statistics and masses are of these and counts are of `blocks`.
template <class A>
class ThresholdSelector {
 public:
  ThresholdSelector(const ThresholdSpec& spec, int blocks)
      : spec_(spec), counted_(blocks), e_(blocks), bucket_(blocks), ordered_(blocks) {
    expect(blocks);
  }

  // Appends the selected ids, ascending, counted from first_id.
  void append(std::span<const A> row, int first_id, std::vector<int32_t>& ids) {
    expect(static_cast<int>(row.size()));
    if (bounds_.keeps_all) {
      append_range(first_id, first_id + blocks_, ids);
      return;
    }
    switch (bounds_.rule) {
      case ThresholdRule::kValue:
        append_above_value(row.data(), first_id, ids);
        break;
      case ThresholdRule::kMass:
        append_mass(row.data(), first_id, ids);
        break;
    }
  }

  // softmax of the row, NaN weighs nothing.
  void weigh(std::span<const A> row, std::span<A> shares) {
    expect(static_cast<int>(row.size()));
    const double total = exponentiate(row.data());
    for (int j = 0; j < blocks_; ++j) shares[j] = static_cast<A>(e_[j] / total);
  }

  static void append_range(int first, int last, std::vector<int32_t>& ids) {
    const size_t size = ids.size();
    ids.resize(size + last - first);
    std::iota(ids.begin() + size, ids.end(), first);
  }

 private:
  // Rows of so many scores follow.
  void expect(int blocks) {
    if (blocks == blocks_) return;
    blocks_ = blocks;
    bounds_ = threshold_bounds(spec_, counted_, blocks);
  }

  void append_above_value(const A* scores, int first_id, std::vector<int32_t>& ids) {
    const double origin = scores[0];
    Statistics statistics;
    run_on_isa<StatisticsKernel<A>>(scores, static_cast<int64_t>(blocks_), &statistics);
    const double threshold = statistics.mean + statistics.deviation * bounds_.quantile;
    const size_t size = ids.size();
    append_where(first_id, ids, [&](int j) { return scores[j] - origin >= threshold; });
    ensure_least(scores, first_id, size, ids);
  }

  void append_mass(const A* scores, int first_id, std::vector<int32_t>& ids) {
    const double target = bounds_.tau * exponentiate(scores);
    // Two sets, because sums that wait for each other take long.
    std::array<std::array<double, kMassBuckets + 1>, 2> masses{};
    for (int j = 0; j < blocks_; ++j) masses[j % 2][bucket_[j]] += e_[j];
    double mass = 0;
    int bucket = 0;
    for (; bucket < kMassBuckets; ++bucket) {
      const double with = mass + (masses[0][bucket] + masses[1][bucket]);
      if (with >= target) break;
      mass = with;
    }
    order(scores);
    keys_.clear();
    for (int j = 0; j < blocks_; ++j) {
      if (bucket_[j] == bucket) keys_.push_back(key_of(j));
    }
    const size_t size = ids.size();
    if (keys_.empty()) {  // only rounding kept the sum below a target close to it
      append_range(first_id, first_id + blocks_, ids);
    } else {
      append_from(last_key(target - mass), first_id, ids);
    }
    ensure_least(scores, first_id, size, ids);
  }

  // Takes the best bounds_.least instead, if there are fewer behind the first `size` ids.
  void ensure_least(const A* scores, int first_id, size_t size, std::vector<int32_t>& ids) {
    if (ids.size() - size >= static_cast<size_t>(bounds_.least)) return;
    ids.resize(size);
    order(scores);
    keys_.clear();
    for (int j = 0; j < blocks_; ++j) keys_.push_back(key_of(j));
    std::partial_sort(keys_.begin(), keys_.begin() + bounds_.least, keys_.end(), std::greater<>());
    append_from(keys_[bounds_.least - 1], first_id, ids);
  }

  // Fills e_ and bucket_; returns the sum of e_.
  double exponentiate(const A* scores) {
    const int64_t count = blocks_;
    A largest = 0;
    double total = 0;
    run_on_isa<LargestKernel<A>>(scores, count, &largest);
    if (std::isfinite(largest)) {
      run_on_isa<ExpKernel<A>>(scores, count, largest, e_.data(), &total);
      run_on_isa<BucketKernel<A>>(
          scores, count, largest,
          static_cast<A>(mass_buckets_per_unit(blocks_, bounds_.tau, total)), bucket_.data());
    } else {  // +inf takes all of the mass; only -inf and NaN: all are alike
      std::fill(bucket_.begin(), bucket_.end(), kMassBuckets);
      for (int j = 0; j < blocks_; ++j) {
        e_[j] = largest < 0 || scores[j] == largest ? 1 : 0;
        total += e_[j];
      }
    }
    return total;
  }

  // The last of the largest of keys_ that have the target mass, or of all if these have less; there
  // is at least one. Sorts no more than needed.
  ScoreKey<A> last_key(double target) {
    double mass = 0;
    int64_t done = 0;
    const int64_t size = static_cast<int64_t>(keys_.size());
    for (int64_t step = 32; done < size; step *= 2) {
      const int64_t end = std::min(done + step, size);
      const auto from = keys_.begin() + done, to = keys_.begin() + end;
      if (end < size) std::nth_element(from, to, keys_.end(), std::greater<>());
      std::sort(from, to, std::greater<>());
      for (; done < end; ++done) {
        mass += e_[id_of_descending<A>(keys_[done])];
        if (mass >= target) return keys_[done];
      }
    }
    return keys_.back();
  }

  void order(const A* scores) {
    run_on_isa<OrderKernel<A>>(scores, static_cast<int64_t>(blocks_), ordered_.data());
  }
  ScoreKey<A> key_of(int j) const {
    return descending_key<A>(ordered_[j], static_cast<uint32_t>(j));
  }

  void append_from(ScoreKey<A> smallest, int first_id, std::vector<int32_t>& ids) const {
    const int last_id = static_cast<int>(id_of_descending<A>(smallest));
    const ValueBits<A> last = ordered_[last_id];
    append_where(first_id, ids, [&](int j) {
      return (ordered_[j] > last) | ((ordered_[j] == last) & (j <= last_id));
    });
  }

  template <class Selected>
  void append_where(int first_id, std::vector<int32_t>& ids, Selected selected) const {
    size_t size = ids.size();
    ids.resize(size + blocks_);
    for (int j = 0; j < blocks_; ++j) {
      ids[size] = first_id + j;
      size += selected(j);
    }
    ids.resize(size);
  }

  const ThresholdSpec& spec_;
  int counted_;
  int blocks_ = -1;  // scores of a row
  ThresholdBounds bounds_;
  std::vector<A> e_;
  std::vector<int32_t> bucket_;
  std::vector<ValueBits<A>> ordered_;
  std::vector<ScoreKey<A>> keys_;
};

// Coefficients from the highest power down.
double polynomial(std::initializer_list<double> coefficients, double x) {
  double value = 0;
  for (const double coefficient : coefficients) value = value * x + coefficient;
  return value;
}

double lower_tail(double p) {
  const double q = std::sqrt(-2 * std::log(p));
  return polynomial({-7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00,
                     -2.549732539343734e+00, 4.374664141464968e+00, 2.938163982698783e+00},
                    q) /
         polynomial({7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00,
                     3.754408661907416e+00, 1.0},
                    q);
}

double central(double q) {
  const double r = q * q;
  return q *
         polynomial({-3.969683028665376e+01, 2.209460984245205e+02, -2.759285104469687e+02,
                     1.383577518672690e+02, -3.066479806614716e+01, 2.506628277459239e+00},
                    r) /
         polynomial({-5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02,
                     6.680131188771972e+01, -1.328068155288572e+01, 1.0},
                    r);
}

}  // namespace

double inverse_normal_cdf(double p) {
  SPROCKET_CHECK(p >= 0 && p <= 1, "a probability of {}", p);
  if (p == 0 || p == 1) return (p - 0.5) * std::numeric_limits<double>::infinity();
  constexpr double kTail = 0.02425;  // where the approximation changes
  double x = 0;
  if (p < kTail) {
    x = lower_tail(p);
  } else if (p > 1 - kTail) {
    x = -lower_tail(1 - p);
  } else {
    x = central(p - 0.5);
  }
  const double density = std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
  const double step = (std::erfc(-x / std::numbers::sqrt2) / 2 - p) / density;
  return x - step / (1 + x * step / 2);
}

ThresholdBounds threshold_bounds(const ThresholdSpec& spec, int counted, int blocks) {
  ThresholdBounds bounds;
  bounds.rule = spec.rule;
  bounds.tau = spec.tau;
  switch (spec.rule) {
    case ThresholdRule::kValue: {
      const int k = selected_count(spec.sparsity, counted);
      bounds.least = std::max(spec.min_blocks_value, 1);
      bounds.keeps_all = k >= blocks || bounds.least >= blocks;
      if (!bounds.keeps_all) {
        bounds.quantile = -inverse_normal_cdf(static_cast<double>(k) / blocks);
      }
      break;
    }
    case ThresholdRule::kMass:
      bounds.least = std::max(spec.min_blocks, 1);
      bounds.keeps_all = spec.tau >= 1 || bounds.least >= blocks;
      break;
  }
  return bounds;
}

template <class A>
SegmentTable select_by_threshold(const A* qc, const A* kc, int batch, int heads, int query_blocks,
                                 int kv_blocks, int head_dim, double scale,
                                 const ThresholdSpec& spec, int threads) {
  const int prefix = spec.prefix_blocks, video = kv_blocks - prefix;
  SPROCKET_CHECK(spec.tau > 0, "tau is {}", spec.tau);
  SPROCKET_CHECK(prefix >= 0 && video >= 0, "{} prefix blocks of {}", prefix, kv_blocks);
  SegmentTable table;
  table.batch = batch;
  table.heads = heads;
  table.query_blocks = query_blocks;
  table.kv_blocks = kv_blocks;
  table.row_offsets.assign(table.rows() + 1, 0);
  const int64_t tiles = (query_blocks + kTileRows - 1) / kTileRows;
  const int64_t tasks = static_cast<int64_t>(batch) * heads * tiles;
  // Query blocks of a call that are prefix blocks come first.
  const int prefix_rows = std::clamp(prefix - spec.first_query_block, 0, query_blocks);

  const ThresholdSelector<A> unused(spec, video);
  std::vector<std::vector<int32_t>> ids(tasks);
#pragma omp parallel num_threads(threads)
  {
    ThresholdSelector<A> selector = unused;
    std::vector<A> scores(static_cast<int64_t>(std::min(kTileRows, query_blocks)) * video);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < tasks; ++task) {
      const int64_t batch_head = task / tiles;
      const int first = static_cast<int>(task % tiles) * kTileRows;
      const int last = std::min(first + kTileRows, query_blocks);
      const int scored = std::clamp(prefix_rows, first, last);
      coarse_scores(qc + (batch_head * query_blocks + scored) * head_dim,
                    kc + (batch_head * kv_blocks + prefix) * head_dim, 1, last - scored, video,
                    head_dim, scale, scores.data(), 1);
      for (int row = first; row < last; ++row) {
        const size_t before = ids[task].size();
        ThresholdSelector<A>::append_range(0, row < scored ? kv_blocks : prefix, ids[task]);
        if (row >= scored) {
          selector.append({scores.data() + static_cast<int64_t>(row - scored) * video,
                           static_cast<size_t>(video)},
                          prefix, ids[task]);
        }
        table.row_offsets[batch_head * query_blocks + row + 1] =
            static_cast<int64_t>(ids[task].size() - before);
      }
    }
  }
  std::partial_sum(table.row_offsets.begin(), table.row_offsets.end(), table.row_offsets.begin());
  table.kv_block.resize(table.row_offsets.back());
#pragma omp parallel for num_threads(threads)
  for (int64_t task = 0; task < tasks; ++task) {
    const int64_t first_row = task / tiles * query_blocks + task % tiles * kTileRows;
    std::copy(ids[task].begin(), ids[task].end(),
              table.kv_block.begin() + table.row_offsets[first_row]);
  }
  return table;
}

namespace {

template <class A>
class ThresholdLevels : public internal::LevelRule<A> {
 public:
  ThresholdLevels(const ThresholdSpec& spec, int blocks) : spec_(spec), selector_(spec_, blocks) {}
  void assign(std::span<const A> scores, std::span<const uint8_t>,
              std::span<uint8_t> levels) override {
    ids_.clear();
    selector_.append(scores, 0, ids_);
    std::fill(levels.begin(), levels.end(), uint8_t{0});
    for (const int32_t id : ids_) levels[id] = 1;
  }
  void weigh(std::span<const A> scores, std::span<A> shares) override {
    selector_.weigh(scores, shares);
  }

 private:
  ThresholdSpec spec_;
  ThresholdSelector<A> selector_;
  std::vector<int32_t> ids_;
};

}  // namespace

template <class A>
std::unique_ptr<BudgetedSelection<A>> budgeted_selection(const A* qc, const A* kc, int batch,
                                                         int heads, int query_blocks, int kv_blocks,
                                                         int head_dim, double scale,
                                                         const ThresholdSpec& spec,
                                                         const DomainBudget& budget,
                                                         HeldDomains held, int threads) {
  const internal::RowsShape shape{
      batch, heads, query_blocks, kv_blocks, spec.first_query_block, spec.prefix_blocks, threads};
  const int video = shape.video_blocks(), first = shape.prefix_rows();
  auto rows = std::make_unique<internal::BudgetedRows<A>>(
      shape, budget, held,
      [spec, video] { return std::make_unique<ThresholdLevels<A>>(spec, video); }, nullptr,
      nullptr);
  for (int64_t bh = 0; bh < int64_t{batch} * heads; ++bh) {
    coarse_scores(qc + (bh * query_blocks + first) * head_dim,
                  kc + (bh * kv_blocks + spec.prefix_blocks) * head_dim, 1, query_blocks - first,
                  video, head_dim, scale, rows->scores(bh, first), threads);
  }
  return rows;
}

template SegmentTable select_by_threshold(const float*, const float*, int, int, int, int, int,
                                          double, const ThresholdSpec&, int);
template SegmentTable select_by_threshold(const double*, const double*, int, int, int, int, int,
                                          double, const ThresholdSpec&, int);
template std::unique_ptr<BudgetedSelection<float>> budgeted_selection(const float*, const float*,
                                                                      int, int, int, int, int,
                                                                      double, const ThresholdSpec&,
                                                                      const DomainBudget&,
                                                                      HeldDomains, int);
template std::unique_ptr<BudgetedSelection<double>> budgeted_selection(const double*, const double*,
                                                                       int, int, int, int, int,
                                                                       double, const ThresholdSpec&,
                                                                       const DomainBudget&,
                                                                       HeldDomains, int);

}  // namespace sprocket::kernels

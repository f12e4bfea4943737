#include "kernels/threshold_selection.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "kernels/block_pooling.h"
#include "kernels/block_selection.h"
#include "kernels/lanes.h"
#include "kernels/score_key.h"

namespace sprocket::kernels {
namespace {

constexpr int kTileRows = 96;  // a multiple of the six rows that panel_product works on at once

// e[j] = exp(s[j] - largest); 0 for NaN.
template <class A>
struct ExpKernel {
  SPROCKET_INLINE static void run(const A* s, int64_t count, A largest, A* e) {
    for (int64_t j = 0; j < count; j += kLanes<A>) {
      const int64_t lanes = std::min<int64_t>(kLanes<A>, count - j);
      const Lanes<A> value = exp_of_lanes(load_first(s + j, lanes) - largest);
      store_first(e + j, value == value ? value : Lanes<A>{}, lanes);
    }
  }
};

// The rule on one row of video scores; keeps its buffers between rows.
template <class A>
class ThresholdSelector {
 public:
  ThresholdSelector(const ThresholdSpec& spec, int blocks)
      : spec_(spec), blocks_(blocks), e_(blocks) {
    switch (spec.rule) {
      case ThresholdRule::kValue: {
        const int k = selected_count(spec.sparsity, blocks);
        least_ = std::max(spec.min_blocks_value, 1);
        keeps_all_ = k == blocks || least_ >= blocks;
        if (!keeps_all_) quantile_ = -inverse_normal_cdf(static_cast<double>(k) / blocks);
        break;
      }
      case ThresholdRule::kMass:
        least_ = std::max(spec.min_blocks, 1);
        keeps_all_ = spec.tau >= 1 || least_ >= blocks;
        break;
    }
  }

  // Appends the selected ids, ascending, counted from first_id.
  void append(const A* scores, int first_id, std::vector<int32_t>& ids) {
    if (keeps_all_) {
      append_range(first_id, first_id + blocks_, ids);
      return;
    }
    switch (spec_.rule) {
      case ThresholdRule::kValue:
        append_above_value(scores, first_id, ids);
        break;
      case ThresholdRule::kMass:
        append_mass(scores, first_id, ids);
        break;
    }
  }

  static void append_range(int first, int last, std::vector<int32_t>& ids) {
    const size_t size = ids.size();
    ids.resize(size + last - first);
    std::iota(ids.begin() + size, ids.end(), first);
  }

 private:
  void append_above_value(const A* scores, int first_id, std::vector<int32_t>& ids) {
    const double origin = scores[0];
    double sum = 0, squares = 0;
    for (int j = 0; j < blocks_; ++j) sum += scores[j] - origin;
    const double mean = sum / blocks_;
    for (int j = 0; j < blocks_; ++j) {
      const double centred = (scores[j] - origin) - mean;
      squares += centred * centred;
    }
    const double threshold = mean + std::sqrt(squares / blocks_) * quantile_;
    const size_t size = ids.size();
    for (int j = 0; j < blocks_; ++j) {
      if (scores[j] - origin >= threshold) ids.push_back(first_id + j);
    }
    if (ids.size() - size < static_cast<size_t>(least_)) {
      ids.resize(size);
      collect(scores, -std::numeric_limits<A>::infinity());
      std::nth_element(sorted_.begin(), sorted_.begin() + (least_ - 1), sorted_.end(),
                       std::greater<>());
      append_from(sorted_[least_ - 1], first_id, ids);
    }
  }

  void append_mass(const A* scores, int first_id, std::vector<int32_t>& ids) {
    const double total = exponentiate(scores);
    const double target = spec_.tau * total;
    // What lies below `cut` has less mass than may be left out, so few keys need sorting; should
    // rounding say otherwise, all are.
    const double share = (1 - spec_.tau) * total / blocks_;
    const A cut = std::isfinite(largest_) ? static_cast<A>(largest_ + std::log(share) - 0.01)
                                          : -std::numeric_limits<A>::infinity();
    collect(scores, cut);
    int count = count_reaching(target);
    if (count == 0 && static_cast<int>(keys_.size()) < blocks_) {
      collect(scores, -std::numeric_limits<A>::infinity());
      count = count_reaching(target);
    }
    if (count == 0) {
      append_range(first_id, first_id + blocks_, ids);
    } else {
      append_from(sorted_[count - 1], first_id, ids);
    }
  }

  // Fills e_ and largest_; returns the sum of e_.
  double exponentiate(const A* scores) {
    largest_ = -std::numeric_limits<A>::infinity();
    for (int j = 0; j < blocks_; ++j) largest_ = scores[j] > largest_ ? scores[j] : largest_;
    if (std::isfinite(largest_)) {
      run_on_isa<ExpKernel<A>>(scores, static_cast<int64_t>(blocks_), largest_, e_.data());
    } else {  // +inf takes all of the mass; only -inf and NaN: all are alike
      for (int j = 0; j < blocks_; ++j) e_[j] = largest_ < 0 || scores[j] == largest_ ? 1 : 0;
    }
    double total = 0;
    for (int j = 0; j < blocks_; ++j) total += e_[j];
    return total;
  }

  // The keys of scores not below cut (and of NaN, if cut is -inf) in ascending order of ids.
  void collect(const A* scores, A cut) {
    keys_.resize(blocks_);
    const bool all = cut == -std::numeric_limits<A>::infinity();
    size_t count = 0;
    for (int j = 0; j < blocks_; ++j) {
      keys_[count] = descending_key(scores[j], static_cast<uint32_t>(j));
      count += all || scores[j] >= cut;
    }
    keys_.resize(count);
    sorted_ = keys_;
  }

  // How many of the largest keys, at least least_, have the target mass; 0 if all have less or
  // are fewer. Sorts no more of sorted_ than needed.
  int count_reaching(double target) {
    const size_t least = least_;
    double mass = 0;
    size_t done = 0;
    for (size_t step = std::max<size_t>(least, 32); done < sorted_.size(); step *= 2) {
      const size_t end = std::min(done + step, sorted_.size());
      const auto from = sorted_.begin() + done, to = sorted_.begin() + end;
      if (end < sorted_.size()) std::nth_element(from, to, sorted_.end(), std::greater<>());
      std::sort(from, to, std::greater<>());
      while (done < end) {
        mass += e_[id_of_descending<A>(sorted_[done])];
        ++done;
        if (done >= least && mass >= target) return static_cast<int>(done);
      }
    }
    return 0;
  }

  void append_from(ScoreKey<A> smallest, int first_id, std::vector<int32_t>& ids) {
    for (const ScoreKey<A> key : keys_) {
      if (key >= smallest) ids.push_back(first_id + static_cast<int>(id_of_descending<A>(key)));
    }
  }

  const ThresholdSpec& spec_;
  int blocks_;
  int least_ = 1;
  bool keeps_all_ = false;
  double quantile_ = 0;
  A largest_ = 0;
  std::vector<A> e_;
  std::vector<ScoreKey<A>> keys_, sorted_;
};

}  // namespace

double inverse_normal_cdf(double p) {
  SPROCKET_CHECK(p >= 0 && p <= 1, "a probability of {}", p);
  if (p == 0 || p == 1) return (p - 0.5) * std::numeric_limits<double>::infinity();
  constexpr double kTail = 0.02425;
  const auto tail = [](double probability) {
    const double q = std::sqrt(-2 * std::log(probability));
    return (((((-7.784894002430293e-03 * q - 3.223964580411365e-01) * q - 2.400758277161838e+00) *
                  q -
              2.549732539343734e+00) *
                 q +
             4.374664141464968e+00) *
                q +
            2.938163982698783e+00) /
           ((((7.784695709041462e-03 * q + 3.224671290700398e-01) * q + 2.445134137142996e+00) * q +
             3.754408661907416e+00) *
                q +
            1);
  };
  double x = 0;
  if (p < kTail) {
    x = tail(p);
  } else if (p > 1 - kTail) {
    x = -tail(1 - p);
  } else {
    const double q = p - 0.5, r = q * q;
    x = (((((-3.969683028665376e+01 * r + 2.209460984245205e+02) * r - 2.759285104469687e+02) * r +
           1.383577518672690e+02) *
              r -
          3.066479806614716e+01) *
             r +
         2.506628277459239e+00) *
        q /
        (((((-5.447609879822406e+01 * r + 1.615858368580409e+02) * r - 1.556989798598866e+02) * r +
           6.680131188771972e+01) *
              r -
          1.328068155288572e+01) *
             r +
         1);
  }
  const double density = std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
  const double step = (std::erfc(-x / std::numbers::sqrt2) / 2 - p) / density;
  return x - step / (1 + x * step / 2);
}

template <class A>
SegmentTable select_by_threshold(const A* qc, const A* kc, int batch, int heads, int query_blocks,
                                 int kv_blocks, int head_dim, double scale,
                                 const ThresholdSpec& spec, int threads) {
  const int prefix = spec.prefix_blocks, video = kv_blocks - prefix;
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
          selector.append(scores.data() + static_cast<int64_t>(row - scored) * video, prefix,
                          ids[task]);
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

template SegmentTable select_by_threshold(const float*, const float*, int, int, int, int, int,
                                          double, const ThresholdSpec&, int);
template SegmentTable select_by_threshold(const double*, const double*, int, int, int, int, int,
                                          double, const ThresholdSpec&, int);

}  // namespace sprocket::kernels

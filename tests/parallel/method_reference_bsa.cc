// BSA's two choices: which queries of a block attend, and over which blocks.
#include <algorithm>
#include <cmath>
#include <map>

#include <ATen/ATen.h>

#include "tests/parallel/method_reference_parts.h"

namespace sprocket::parallel::testing {
namespace {

using Position = std::array<int32_t, 3>;
using Vector = std::vector<double>;

double cosine(const Vector& a, const Vector& b) {
  double dot = 0, aa = 0, bb = 0;
  for (size_t d = 0; d < a.size(); ++d) {
    dot += a[d] * b[d];
    aa += a[d] * a[d];
    bb += b[d] * b[d];
  }
  return aa == 0 || bb == 0 ? 0 : dot / (std::sqrt(aa) * std::sqrt(bb));
}

int64_t squared_distance(const Position& a, const Position& b) {
  int64_t sum = 0;
  for (int axis = 0; axis < 3; ++axis) {
    sum += int64_t{a[axis] - b[axis]} * (a[axis] - b[axis]);
  }
  return sum;
}

// One block of one head: its queries and where they are.
struct Block {
  std::vector<Vector> queries;
  std::vector<Position> positions;

  // The token nearest to the middle of the bounding box of `tokens`.
  int64_t geometric_centre(const std::vector<int64_t>& tokens) const {
    Position twice_middle, doubled;
    for (int axis = 0; axis < 3; ++axis) {
      int32_t low = positions[tokens[0]][axis], high = low;
      for (const int64_t t : tokens) {
        low = std::min(low, positions[t][axis]);
        high = std::max(high, positions[t][axis]);
      }
      twice_middle[axis] = low + high;
    }
    int64_t nearest = -1, least = 0;
    for (const int64_t t : tokens) {
      for (int axis = 0; axis < 3; ++axis) doubled[axis] = 2 * positions[t][axis];
      const int64_t distance = squared_distance(doubled, twice_middle);
      if (nearest < 0 || distance < least) nearest = t, least = distance;
    }
    return nearest;
  }

  bool redundant(double threshold) const {
    double sum = 0;
    int pairs = 0;
    for (size_t t = 0; t < queries.size(); ++t) {
      const Position before{positions[t][0] - 1, positions[t][1], positions[t][2]};
      for (size_t u = 0; u < queries.size(); ++u) {
        if (positions[u] != before) continue;
        sum += cosine(queries[t], queries[u]);
        ++pairs;
      }
    }
    return pairs > 0 && sum / pairs > threshold;
  }

  std::vector<int64_t> kept(const kernels::PruningSpec& spec) const {
    const bool lower = spec.redundancy_threshold && redundant(*spec.redundancy_threshold);
    const Decimal ratio = lower ? spec.redundant_keep_ratio : spec.keep_ratio;
    Position low = positions[0];
    for (const Position& p : positions) {
      for (int axis = 0; axis < 3; ++axis) low[axis] = std::min(low[axis], p[axis]);
    }
    std::map<Position, std::vector<int64_t>> windows;
    for (size_t t = 0; t < positions.size(); ++t) {
      Position window{};
      for (int axis = 0; axis < 3; ++axis) {
        if (spec.window[axis] > 0) {
          window[axis] = (positions[t][axis] - low[axis]) / spec.window[axis];
        }
      }
      windows[window].push_back(static_cast<int64_t>(t));
    }
    std::vector<int64_t> result;
    for (const auto& [window, tokens] : windows) {
      const auto n = static_cast<int64_t>(tokens.size());
      const int64_t centre = spec.centre == kernels::PruningCentre::kGeometric
                                 ? geometric_centre(tokens)
                                 : tokens[n / 2];
      Vector difference(queries.size());
      for (const int64_t t : tokens) difference[t] = -cosine(queries[t], queries[centre]);
      for (const int64_t t : best(difference, tokens, std::max<int64_t>(1, ratio.floor_times(n)))) {
        result.push_back(t);
      }
    }
    std::sort(result.begin(), result.end());
    return result;
  }

  int64_t source(int64_t token, const std::vector<int64_t>& kept,
                 kernels::PruningRecovery recovery) const {
    int64_t nearest = -1, least = 0;
    for (const int64_t k : kept) {
      const int64_t distance = recovery == kernels::PruningRecovery::kNearestIndex
                                   ? std::abs(token - k)
                                   : squared_distance(positions[token], positions[k]);
      if (nearest < 0 || distance < least) nearest = k, least = distance;
    }
    return nearest;
  }
};

// The x with Phi(x) = p, by halving.
double normal_quantile(double p) {
  double low = -40, high = 40;
  for (int step = 0; step < 200; ++step) {
    const double middle = (low + high) / 2;
    (std::erfc(-middle / std::sqrt(2.0)) / 2 < p ? low : high) = middle;
  }
  return low;
}

// Of the given blocks, where there are n in all.
std::vector<int64_t> row_choice(const kernels::ThresholdSpec& spec, const Vector& scores,
                                const std::vector<int64_t>& candidates, int64_t n) {
  const auto blocks = static_cast<int64_t>(candidates.size());
  const auto sorted = best(scores, candidates, blocks);
  int64_t count = 0;
  if (spec.rule == kernels::ThresholdRule::kValue) {
    const int64_t k = std::min(
        blocks, std::clamp<int64_t>((Decimal::ratio(1, 0) - spec.sparsity).ceil_times(n), 1, n));
    const double origin = scores[candidates[0]], weight = 1.0 / static_cast<double>(blocks);
    double mean = 0, variance = 0;
    for (const int64_t j : sorted) mean += (scores[j] - origin) * weight;
    for (const int64_t j : sorted) variance += std::pow(scores[j] - origin - mean, 2) * weight;
    const double z = k == blocks ? 0 : normal_quantile(1 - static_cast<double>(k) * weight);
    while (count < blocks &&
           (k == blocks || scores[sorted[count]] - origin >= mean + std::sqrt(variance) * z)) {
      ++count;
    }
    count = std::max<int64_t>(count, std::min<int64_t>(spec.min_blocks_value, blocks));
  } else {
    double total = 0, mass = 0;
    for (const int64_t j : sorted) total += std::exp(scores[j] - scores[sorted[0]]);
    while (count < blocks && (count == 0 || spec.tau >= 1 || mass < spec.tau * total)) {
      mass += std::exp(scores[sorted[count++]] - scores[sorted[0]]);
    }
    count = std::max<int64_t>(count, std::min<int64_t>(spec.min_blocks, blocks));
  }
  return {sorted.begin(), sorted.begin() + count};
}

}  // namespace

MethodChoice choose_bsa(const AttentionCase& c, const AttentionTensors& inputs) {
  const TokenLayout layout = make_token_layout(c.layout);
  const int64_t n = layout.blocks(), prefix = layout.prefix_blocks(), tokens = layout.tokens();
  const kernels::PruningSpec& pruning = c.spec.bsa.pruning;
  const at::Tensor q = heads_first(inputs.q), k = heads_first(inputs.k);
  const at::Tensor key_means = block_means(layout, k);
  MethodChoice choice{block_rows(layout), at::zeros({c.batch, c.heads, n, n}, at::kBool),
                      at::empty({c.batch, c.heads, tokens}, at::kLong)};
  const at::Tensor all_scores = at::zeros({c.batch, c.heads, n, n}, at::kDouble);
  for (int64_t b = 0; b < c.batch; ++b) {
    for (int64_t h = 0; h < c.heads; ++h) {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t first = layout.block_offsets[i], last = layout.block_offsets[i + 1];
        const auto source = choice.source[b][h];
        if (i < prefix) {
          for (int64_t t = first; t < last; ++t) source[t] = t;
          choice.selected[b][h][i].fill_(true);
          continue;
        }
        Block block;
        for (int64_t t = first; t < last; ++t) {
          block.queries.push_back(row_of(q, b, h, t));
          block.positions.push_back(layout.position(t));
        }
        const auto kept = block.kept(pruning);
        for (int64_t t = 0; t < last - first; ++t) {
          source[first + t] = first + block.source(t, kept, pruning.recovery);
        }
        const at::Tensor mean = q[b][h]
                                    .narrow(0, first, last - first)
                                    .index_select(0, at::tensor(kept, at::kLong))
                                    .mean(0, true);
        const at::Tensor scores =
            scale_of(c) * at::matmul(mean, key_means[b][h].transpose(0, 1)).view({1, 1, 1, n});
        all_scores[b][h][i].copy_(scores.view({n}));
      }
    }
  }
  const auto choose = [&](int64_t b, int64_t h, int64_t i, const std::vector<int64_t>& video) {
    return row_choice(c.spec.bsa.threshold, row_of(all_scores, b, h, i), video, n - prefix);
  };
  at::Tensor shares = all_scores.clone();
  shares.narrow(3, prefix, n - prefix)
      .copy_(at::softmax(all_scores.narrow(3, prefix, n - prefix), -1));
  choose_rows(
      c, layout, choose, [&](int64_t b, int64_t h, int64_t i) { return row_of(shares, b, h, i); },
      choice,
      [&](int64_t b, int64_t h, int64_t i, const std::vector<int64_t>& video) {
        for (const int64_t j : range(0, prefix)) set(choice.selected, b, h, i, j);
        for (const int64_t j : choose(b, h, i, video)) set(choice.selected, b, h, i, j);
      });
  return choice;
}

}  // namespace sprocket::parallel::testing

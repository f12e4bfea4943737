// The selections of PSA and ASA, by scores of sampled tokens.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <ATen/ATen.h>

#include "kernels/block_samples.h"
#include "tests/parallel/method_reference_parts.h"

namespace sprocket::parallel::testing {
namespace {

using Vector = std::vector<double>;

// [B, H, N, N] scores between blocks; of video blocks only, elsewhere 0.
at::Tensor sampled_scores(const AttentionCase& c, const AttentionTensors& inputs,
                          const TokenLayout& layout, const SamplingSpec& sampling,
                          kernels::SampledScore score) {
  const int n = layout.blocks(), prefix = layout.prefix_blocks();
  std::vector<int> heads(c.heads);
  std::iota(heads.begin(), heads.end(), 0);
  const auto samples =
      kernels::sample_blocks(layout.block_offsets, 0, n, heads, sampling.per_block,
                             {sampling.seed, static_cast<uint64_t>(sampling.step), c.layer});
  const at::Tensor q = heads_first(inputs.q), k = heads_first(inputs.k);
  const at::Tensor scores = at::zeros({c.batch, c.heads, n, n}, at::kDouble);
  for (int64_t b = 0; b < c.batch; ++b) {
    for (int64_t h = 0; h < c.heads; ++h) {
      std::vector<int64_t> tokens, blocks;
      for (int64_t j = prefix; j < n; ++j) {
        for (int s = 0; s < samples.counts[j]; ++s) {
          tokens.push_back(samples.rows[(h * n + j) * samples.samples + s]);
          blocks.push_back(j);
        }
      }
      const at::Tensor rows = at::tensor(tokens, at::kLong);
      const at::Tensor logits =
          scale_of(c) *
          at::matmul(q[b][h].index_select(0, rows), k[b][h].index_select(0, rows).transpose(0, 1));
      const at::Tensor e =
          (score == kernels::SampledScore::kSoftmax ? at::softmax(logits, -1)
                                                    : (logits - logits.amax(-1, true)).exp())
              .contiguous();
      double* to = scores[b][h].data_ptr<double>();
      for (size_t x = 0; x < tokens.size(); ++x) {
        for (size_t y = 0; y < tokens.size(); ++y) {
          double& s = to[blocks[x] * n + blocks[y]];
          s = std::max(s, e.data_ptr<double>()[x * tokens.size() + y]);
        }
      }
    }
  }
  return scores;
}

// Scores up to each place of `order`.
Vector cumulated(const Vector& scores, const std::vector<int64_t>& order) {
  Vector sums;
  double sum = 0;
  for (const int64_t j : order) sums.push_back(sum += scores[j]);
  return sums;
}

// Level of each of the given blocks of a row, 0 skipped, where there are n in all.
std::vector<int64_t> levels_of(const kernels::LevelSelection& rule, const Vector& scores,
                               const std::vector<int64_t>& candidates, int64_t n) {
  const auto blocks = static_cast<int64_t>(candidates.size());
  const auto order = best(scores, candidates, blocks);
  const Vector sums = cumulated(scores, order);
  Decimal quota;
  std::vector<int64_t> places;  // of a level and the finer ones
  for (int level = 1; level <= 4; ++level) {
    int64_t count = 0;
    if (rule.rule == kernels::LevelRule::kQuota) {
      quota = quota + rule.quotas[level - 1];
      count = std::min(quota.floor_times(n), blocks);
    } else {
      const double limit = share_of(rule.thresholds[level - 1], sums.back());
      while (count < blocks && sums[count] <= limit) ++count;
      if (rule.rule == kernels::LevelRule::kCover) count = std::min(count + 1, blocks);
    }
    if (rule.rule == kernels::LevelRule::kCover && level == 1) {
      count = std::max(count, std::min(blocks, rule.least_finest.floor_times(n) + 1));
    }
    places.push_back(count);
  }
  std::vector<int64_t> levels(scores.size(), 0);
  for (int64_t r = 0; r < blocks; ++r) {
    for (int level = 4; level >= 1; --level) {
      if (r < places[level - 1]) levels[order[r]] = level;
    }
  }
  return levels;
}

RowShares shares_of(const at::Tensor& scores) {
  return [scores](int64_t b, int64_t h, int64_t i) {
    Vector row = row_of(scores, b, h, i);
    double sum = 0;
    for (const double score : row) sum += score;
    for (double& score : row) score = sum == 0 ? 0 : score / sum;
    return row;
  };
}

// The coarsest level that keys [first, last) are alike enough for.
int64_t cap_of(const at::Tensor& k_LD, int64_t first, int64_t last, const Vector& thresholds) {
  int64_t cap = 1;
  for (int level = 2; level <= 4; ++level) {
    const int64_t width = int64_t{1} << (level - 1);
    double sum = 0;
    int groups = 0;
    for (int64_t t = first; t < last; t += width, ++groups) {
      const at::Tensor a = k_LD[t], b = k_LD[std::min(t + width, last) - 1];
      sum += at::dot(a, b).item<double>() / (a.norm() * b.norm()).item<double>();
    }
    if (sum / groups > thresholds[level - 2]) cap = level;
  }
  return cap;
}

}  // namespace

MethodChoice choose_psa(const AttentionCase& c, const AttentionTensors& inputs) {
  const TokenLayout layout = make_token_layout(c.layout);
  const int64_t n = layout.blocks(), prefix = layout.prefix_blocks();
  const PsaSpec& spec = c.spec.psa;
  const at::Tensor scores = sampled_scores(c, inputs, layout, spec.sampling, spec.score);
  const at::Tensor k = heads_first(inputs.k);
  MethodChoice choice{pyramid_rows(layout), at::zeros({c.batch, c.heads, n, 4 * n}, at::kBool), {}};
  at::Tensor caps = at::full({c.batch, c.heads, n}, 4, at::kLong);
  for (int64_t b = 0; b < c.batch; ++b) {
    for (int64_t h = 0; h < c.heads; ++h) {
      for (int64_t j = prefix; j < n && !spec.similarity.empty(); ++j) {
        caps[b][h][j] =
            cap_of(k[b][h], layout.block_offsets[j], layout.block_offsets[j + 1], spec.similarity);
      }
      for (int64_t i = 0; i < prefix; ++i) {
        for (int64_t j = 0; j < n; ++j) set(choice.selected, b, h, i, 4 * j);
      }
    }
  }
  const auto levels = [&](int64_t b, int64_t h, int64_t i, const std::vector<int64_t>& video) {
    return levels_of(spec.levels, row_of(scores, b, h, i), video, n - prefix);
  };
  choose_rows(
      c, layout,
      [&](int64_t b, int64_t h, int64_t i, const std::vector<int64_t>& video) {
        std::vector<int64_t> chosen;
        const auto of = levels(b, h, i, video);
        for (const int64_t j : video) {
          if (of[j] > 0) chosen.push_back(j);
        }
        return chosen;
      },
      shares_of(scores), choice,
      [&](int64_t b, int64_t h, int64_t i, const std::vector<int64_t>& video) {
        for (int64_t j = 0; j < prefix; ++j) set(choice.selected, b, h, i, 4 * j);
        const auto of = levels(b, h, i, video);
        for (const int64_t j : video) {
          const int64_t cap = caps[b][h].data_ptr<int64_t>()[j];
          if (of[j] > 0) set(choice.selected, b, h, i, 4 * j + std::min(of[j], cap) - 1);
        }
      });
  return choice;
}

MethodChoice choose_asa(const AttentionCase& c, const AttentionTensors& inputs) {
  const TokenLayout layout = make_token_layout(c.layout);
  const int64_t n = layout.blocks(), prefix = layout.prefix_blocks(), video = n - prefix;
  const AsaSpec& spec = c.spec.asa;
  const at::Tensor scores = sampled_scores(c, inputs, layout, spec.sampling, spec.score);
  MethodChoice choice{block_rows(layout), at::zeros({c.batch, c.heads, n, n}, at::kBool), {}};
  const auto bound = [&](const Decimal& share) {
    return std::max<int64_t>(1, share.floor_times(video));
  };
  const auto choose = [&](int64_t b, int64_t h, int64_t i, const std::vector<int64_t>& allowed) {
    const Vector values = row_of(scores, b, h, i);
    const auto blocks = static_cast<int64_t>(allowed.size());
    auto order = best(values, allowed, blocks);
    const Vector sums = cumulated(values, order);
    const double limit = share_of(spec.selection.mass, sums.back());
    int64_t count = 0;
    while (count < blocks && sums[count] < limit) ++count;
    if (spec.selection.include_crossing) ++count;
    count = std::clamp(count, bound(spec.selection.least), bound(spec.selection.most));
    order.resize(std::min(count, blocks));
    return order;
  };
  choice.selected.narrow(3, 0, prefix).fill_(true);
  choice.selected.narrow(2, 0, prefix).fill_(true);
  choose_rows(c, layout, choose, shares_of(scores), choice,
              [&](int64_t b, int64_t h, int64_t i, const std::vector<int64_t>& allowed) {
                for (const int64_t j : choose(b, h, i, allowed)) set(choice.selected, b, h, i, j);
              });
  if (spec.global_width > 0) {
    choice.keys = global_rows(layout, spec.global_width);
    choice.selected = with_global_columns(c, layout, choice.selected);
  }
  return choice;
}

}  // namespace sprocket::parallel::testing

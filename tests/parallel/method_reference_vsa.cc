// VSA's selection: by block means or by means of equal pieces, with prefix blocks.
#include <algorithm>
#include <limits>

#include <ATen/ATen.h>

#include "tests/parallel/method_reference_parts.h"

namespace sprocket::parallel::testing {
namespace {

at::Tensor mean_scores(const AttentionCase& c, const TokenLayout& layout, const at::Tensor& q,
                       const at::Tensor& k) {
  return scale_of(c) * at::matmul(block_means(layout, q), block_means(layout, k).transpose(-1, -2));
}

// [B, H, blocks * parts, D]. `present`: [blocks * parts] pieces that have tokens.
at::Tensor piece_means(const TokenLayout& layout, int parts, const at::Tensor& x,
                       at::Tensor& present) {
  const int64_t piece = layout.block_capacity() / parts;
  std::vector<int64_t> first, tokens;
  for (int i = 0; i < layout.blocks(); ++i) {
    for (int a = 0; a < parts; ++a) {
      first.push_back(std::min(layout.block_offsets[i] + a * piece, layout.block_offsets[i + 1]));
      tokens.push_back(std::min(layout.block_offsets[i + 1] - first.back(), piece));
    }
  }
  present = at::tensor(tokens, at::kLong) > 0;
  return means(first, tokens, x);
}

at::Tensor piece_scores(const AttentionCase& c, const TokenLayout& layout, const at::Tensor& q,
                        const at::Tensor& k) {
  const int query_parts = c.spec.vsa.query_parts, key_parts = c.spec.vsa.key_parts;
  at::Tensor query_present, key_present;
  const at::Tensor of_queries = piece_means(layout, query_parts, q, query_present),
                   of_keys = piece_means(layout, key_parts, k, key_present);
  const at::Tensor pairs = scale_of(c) * at::matmul(of_queries, of_keys.transpose(-1, -2));
  const at::Tensor present = query_present.unsqueeze(1).logical_and(key_present.unsqueeze(0));
  const int64_t n = layout.blocks();
  return pairs.masked_fill(present.logical_not(), -std::numeric_limits<double>::infinity())
      .view({c.batch, c.heads, n, query_parts, n, key_parts})
      .permute({0, 1, 2, 4, 3, 5})
      .reshape({c.batch, c.heads, n, n, query_parts * key_parts})
      .logsumexp(-1);
}

// What query block i takes of all prefix blocks and the given video blocks.
std::vector<int64_t> row_choice(const AttentionCase& c, const TokenLayout& layout, int64_t i,
                                const std::vector<double>& scores,
                                const std::vector<int64_t>& video) {
  const int64_t n = layout.blocks(), prefix = layout.prefix_blocks();
  if (i < prefix) return range(0, n);
  const int64_t k = std::clamp<int64_t>(
      (Decimal::ratio(1, 0) - c.spec.vsa.sparsity).ceil_times(n - prefix), 1, n - prefix);
  std::vector<int64_t> result = range(0, prefix);
  if (c.spec.vsa.prefix == kernels::PrefixRule::kCompete) {
    result.insert(result.end(), video.begin(), video.end());
    return best(scores, result, k + prefix);
  }
  const auto chosen = best(scores, video, k);
  result.insert(result.end(), chosen.begin(), chosen.end());
  return result;
}

}  // namespace

MethodChoice choose_vsa(const AttentionCase& c, const AttentionTensors& inputs) {
  const TokenLayout layout = make_token_layout(c.layout);
  const int64_t n = layout.blocks(), prefix = layout.prefix_blocks();
  const at::Tensor q = heads_first(inputs.q), k = heads_first(inputs.k);
  const at::Tensor means = mean_scores(c, layout, q, k);
  const bool pieces = c.spec.vsa.query_parts > 1 || c.spec.vsa.key_parts > 1;
  const at::Tensor scores = pieces ? piece_scores(c, layout, q, k) : means;
  const at::Tensor probabilities = at::softmax(means, -1);

  MethodChoice choice{block_rows(layout), at::zeros({c.batch, c.heads, n, n}, at::kBool), {}};
  const auto take = [&](int64_t b, int64_t h, int64_t i, const std::vector<int64_t>& video) {
    for (const int64_t j : row_choice(c, layout, i, row_of(scores, b, h, i), video)) {
      set(choice.selected, b, h, i, j);
    }
  };
  for (int64_t b = 0; b < c.batch; ++b) {
    for (int64_t h = 0; h < c.heads; ++h) {
      for (int64_t i = 0; i < prefix; ++i) take(b, h, i, {});
    }
  }
  choose_rows(
      c, layout,
      [&](int64_t b, int64_t h, int64_t i, const std::vector<int64_t>& video) {
        return row_choice(c, layout, i, row_of(scores, b, h, i), video);
      },
      [&](int64_t b, int64_t h, int64_t i) { return row_of(probabilities, b, h, i); }, choice,
      take);
  return choice;
}

}  // namespace sprocket::parallel::testing

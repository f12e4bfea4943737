// Scores between blocks from sampled tokens (PSA, arXiv 2512.04025; ASA, arXiv 2508.10774).
//
// For the sampled queries a of query block i and the sampled keys b of KV block j,
//   S[i, j] = max over a, b of E[a, b],   s = scale * q k^T,
//   softmax        E[a, b] = exp(s[a, b] - max_b s) / sum_b exp(s[a, b] - max_b s)
//   exp_minus_max  E[a, b] = exp(s[a, b] - max_b s)
// maximum and sum over all sampled keys of all video blocks. Scores lie in [0, 1]: an E that is not
// a number, of a model that has diverged, counts as 0.
//
// The scores are a stream of rows: a row goes to a sink when it is complete, and no array of
// query_blocks * kv_blocks exists. Each thread holds max(128, m) * kv_blocks maxima (128 KiB for
// 256 blocks in fp32), as many columns of queries, and one tile of 64 x 64 logits.
//
// Every logit is one chain of multiply-adds over ascending d, and sums run over ascending keys: a
// row is bitwise the same for any number of threads and whatever query blocks the call holds.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/block_samples.h"
#include "kernels/sampled_score.h"

namespace sprocket::kernels {

// A: float or double. Samples as gather_samples makes them, [batch, heads, blocks, m, head_dim].
template <class A>
struct SampledScoreProblem {
  int batch = 0;
  int heads = 0;
  int query_blocks = 0;  // held by this call
  int kv_blocks = 0;     // all of them, prefix included
  int samples = 0;       // m, at least 1
  int head_dim = 0;
  double scale = 1;  // > 0
  SampledScore score = SampledScore::kSoftmax;
  const A* q = nullptr;
  const A* k = nullptr;
  // Whether q and k are bf16 values: their products are then exact in bf16, and bf16 dot products
  // with fp32 sums may make the logits (A float only).
  bool bfloat16_values = false;
  std::span<const int32_t> q_counts;  // [query_blocks] slots in use
  std::span<const int32_t> k_counts;  // [kv_blocks]
  int first_query_block = 0;          // id of the call's first query block
  int prefix_blocks = 0;              // blocks [0, prefix_blocks) are no video blocks
  int threads = 1;
};

template <class A>
class ScoreRowSink {
 public:
  virtual ~ScoreRowSink() = default;
  // Called once for every video query block of the call, at the same time from several threads;
  // `thread` in [0, threads) is the calling one. scores: [kv_blocks - prefix_blocks], video blocks
  // only; blocks without a sample have 0. Valid during the call.
  virtual void take(int thread, int64_t batch_head, int query_block, std::span<const A> scores) = 0;
};

template <class A>
void sampled_scores(const SampledScoreProblem<A>& problem, ScoreRowSink<A>& sink);

// Scores that are there already, made elsewhere by the same definition.
template <class A>
struct GivenScores {
  int batch = 0;
  int heads = 0;
  int query_blocks = 0;
  int kv_blocks = 0;  // all of them, prefix included
  // [batch * heads, query_blocks, kv_blocks - prefix_blocks]; rows of prefix query blocks are not
  // looked at.
  std::span<const A> scores;
  int first_query_block = 0;
  int prefix_blocks = 0;
  int threads = 1;
};

template <class A>
void sampled_scores(const GivenScores<A>& given, ScoreRowSink<A>& sink);

}  // namespace sprocket::kernels

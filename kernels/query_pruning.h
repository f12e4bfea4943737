// Query pruning of BSA (Bidirectional Sparse Attention, arXiv 2509.01085): which queries of a block
// attend, and how the others get their output back.
//
// In every (batch, head, block) the tokens that are least cosine-similar to the block's centre
// token are kept; a pruned token's output is a copy of a kept one's of its block. The choice is not
// differentiated. A pruned query gets no gradient; a kept one gets the sum of the output gradients
// of all tokens that copied it.
//
// The kept rows lie in a buffer of their own, [B, kept_rows, H, D], in which a block's capacity is
// the same for all heads, so that it is an ordinary query buffer of segment_attention.h with
// offsets as its query blocks. Everything is deterministic and independent of `threads`.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/decimal.h"
#include "kernels/pruning_rule.h"
#include "kernels/segment_attention.h"

namespace sprocket::kernels {

// (t, h, w) of a token.
using TokenPosition = std::array<int32_t, 3>;

// What the other tokens of n are compared with.
enum class PruningCentre {
  kPackedMiddle,  // token n/2 of the packed valid tokens
  kGeometric,  // the token nearest to the middle of the tokens' bounding box, ties to the smaller
               // index
};

struct PruningSpec {
  // Of n tokens floor(keep_ratio * n) are kept, in exact decimal arithmetic, but at least 1 (0 of
  // an empty block). In [0, 1]; 1 keeps everything.
  Decimal keep_ratio = Decimal::ratio(5, 1);
  PruningCentre centre = PruningCentre::kPackedMiddle;
  // Cuts the block's bounding box, from its smallest (t, h, w) on, into windows of this extent,
  // each with its own centre and its own count (so at least 1 token each). 0 along an axis: not cut
  // there. Recovery looks at the whole block, not only at the token's window.
  std::array<int32_t, 3> window{0, 0, 0};
  PruningRecovery recovery = PruningRecovery::kNearestPosition;
  // Spatial-time dynamic training: in a head where the block's temporal redundancy (mean cosine
  // similarity between each token and the one at the same (h, w) one frame earlier in the block)
  // exceeds this, redundant_keep_ratio <= keep_ratio applies instead. A block without such pairs is
  // not redundant, nor is one whose mean is NaN.
  std::optional<double> redundancy_threshold;
  Decimal redundant_keep_ratio;
};

// What is the same in all heads and calls of one sequence, token by token. Tokens and windows are
// numbered over all blocks but for `centre` and `previous`, which name tokens inside the block.
struct PruningLayout {
  std::vector<int64_t> token_offsets;  // [query_blocks + 1]
  std::vector<int64_t> offsets;        // [query_blocks + 1] rows of the kept buffer
  std::vector<int32_t> centre;    // [tokens] of the token's window; -1 in a block that keeps all
  std::vector<int32_t> previous;  // [tokens] the same place one frame earlier, or -1; empty without
                                  // a redundancy threshold
  std::vector<int32_t> window;    // [tokens]; -1 in a block that keeps all
  std::vector<int32_t> keep;      // [windows] tokens kept
  std::vector<int32_t> keep_if_redundant;
};

// As prune_queries; first_exempt_blocks keep every token.
PruningLayout make_pruning_layout(std::span<const int64_t> block_offsets,
                                  std::span<const TokenPosition> positions, const PruningSpec& spec,
                                  int first_exempt_blocks);

struct QueryPruning {
  int batch = 0;
  int heads = 0;
  std::vector<int64_t> token_offsets;  // [query_blocks + 1] the call's tokens of each block
  std::vector<int64_t> offsets;        // [query_blocks + 1] rows of the kept buffer; a block's
                                       // capacity is its count without redundancy
  std::vector<int32_t> rows;           // [B * H * query_blocks] kept rows in use, <= capacity
  std::vector<int32_t> kept;    // [B * H, kept_rows] token of each kept row, relative to the call's
                                // first one; ascending in a block; -1: unused
  std::vector<int32_t> source;  // [B * H, tokens] the kept row that a token's output is copied from

  int64_t query_blocks() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t tokens() const { return token_offsets.back(); }
  int64_t kept_rows() const { return offsets.back(); }
  // Then kept and source are the identity, and attention can run on the queries as they are.
  bool keeps_everything() const;
  bool operator==(const QueryPruning&) const = default;
};

// q: [B, L, H, D] view of the call's tokens; block_offsets: [query_blocks + 1], from 0 to L;
// positions: [L]. Blocks [0, first_exempt_blocks) keep every token (text and other prefix blocks).
//
// Cosine similarity: dot / (|a| |b|) in the accumulator type, every sum over D in one fixed order
// (lanes.h). A vector whose squared norm is 0 there has similarity 0 to everything; otherwise NaN
// counts as most similar. Of equally similar tokens the smaller index is kept.
template <class T>
QueryPruning prune_queries(HeadView<const T> q, std::span<const int64_t> block_offsets,
                           std::span<const TokenPosition> positions, int batch, int heads,
                           int head_dim, const PruningSpec& spec, int first_exempt_blocks,
                           int threads);

// The functions below take views of [B, tokens, H, D] on one side and [B, kept_rows, H, D] on the
// other, and overwrite their result unless they say "adds".

// kept[r] = q[token of r]; zeros in unused rows.
template <class T>
void gather_queries(HeadView<const T> q, const QueryPruning& pruning, int head_dim,
                    HeadView<T> kept, int threads);

// means[b, h, i, :] = mean over the rows in use of block i of the kept queries; [B * H,
// query_blocks, D] contiguous; zeros for an empty block. Bitwise pool_blocks if nothing is pruned.
template <class T>
void kept_means(HeadView<const T> kept, const QueryPruning& pruning, int head_dim,
                Accumulator<T>* means, int threads);

// out[token] = kept[source of token]
template <class T>
void recover_rows(HeadView<const T> kept, const QueryPruning& pruning, int head_dim,
                  HeadView<T> out, int threads);

// The same for LSE: [B, H, kept_rows] -> [B, H, tokens], contiguous.
template <class A>
void recover_lse(const A* kept, const QueryPruning& pruning, A* lse, int threads);

// dkept[r] = sum of dout over the tokens copied from r, in ascending order in the accumulator type,
// rounded to T once; zeros in unused rows. Form delta from dkept, not before.
template <class T>
void recover_rows_backward(HeadView<const T> dout, const QueryPruning& pruning, int head_dim,
                           HeadView<T> dkept, int threads);

// Adds dkept[r] to dq[token of r]; the rows of pruned tokens are not touched.
template <class A>
void scatter_query_gradients(HeadView<const A> dkept, const QueryPruning& pruning, int head_dim,
                             HeadView<A> dq, int threads);

}  // namespace sprocket::kernels

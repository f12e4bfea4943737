// Global tokens (ASA_GT of BLADE, arXiv 2508.10774): the video's keys and values pooled by n, which
// every query attends to besides its selection.
//
// Group g is tokens [g * n, (g + 1) * n) of the video in stored order; the last one may be short.
// Its row is the mean of its tokens, with the logit bias ln(tokens).
//
// Ranks that hold parts of the sequence each make partial means of the groups they touch, in the
// accumulator type: sum of the own tokens / tokens of the whole group. The sum over ranks is the
// mean; the gradient of a group, complete on every rank that touches it, goes back to own tokens
// alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/segment_attention.h"

namespace sprocket::kernels {

// Groups [first_group, first_group + groups) as one KV segment of one bias.
struct GlobalSegment {
  int64_t first_group = 0;
  int32_t groups = 0;
  int32_t block = -1;  // that holds all tokens of all of them, or -1
  double bias = 0;     // natural logarithm
  bool operator==(const GlobalSegment&) const = default;
};

struct GlobalTokens {
  int64_t tokens = 0;  // of the video
  int64_t group_tokens = 1;
  std::vector<GlobalSegment> segments;  // cover the groups in ascending order
  int64_t groups() const { return (tokens + group_tokens - 1) / group_tokens; }
  int64_t tokens_of(int64_t group) const;
};

// video_offsets: [video blocks + 1] first token of each, from any start; first_block: id of the
// first one (the number of prefix blocks). Segments have at most `segment_groups` rows; with
// `by_block` (only if no group straddles blocks, otherwise ConfigError) none crosses a block
// border.
GlobalTokens make_global_tokens(std::span<const int64_t> video_offsets, int first_block,
                                int64_t group_tokens, int segment_groups, bool by_block);

// The groups that video tokens [first_token, first_token + count) touch; none for count 0.
struct GroupRange {
  int64_t first = 0;
  int64_t count = 0;
};
GroupRange groups_of(const GlobalTokens& global, int64_t first_token, int64_t count);

// Overwrites partial [batch, groups_of(..).count, heads, head_dim]. x: video tokens
// [first_token, first_token + count).
template <class T>
void partial_group_means(HeadView<const T> x, const GlobalTokens& global, int64_t first_token,
                         int64_t count, int batch, int heads, int head_dim,
                         HeadView<Accumulator<T>> partial, int threads);

// dx[token] += d_groups[group of the token] / tokens of the group; d_groups holds the groups of
// groups_of(..).
template <class A>
void add_group_gradient(HeadView<const A> d_groups, const GlobalTokens& global, int64_t first_token,
                        int64_t count, int batch, int heads, int head_dim, HeadView<A> dx,
                        int threads);

// Which segments the query blocks of `selected` attend to; ids are indices of global.segments.
// Every row gets all of them or, with `exclude_selected` (global made by_block), those of blocks
// that the row of `selected`, whose ids are block ids, does not list.
SegmentTable global_table(const SegmentTable& selected, const GlobalTokens& global,
                          bool exclude_selected, int threads);

}  // namespace sprocket::kernels

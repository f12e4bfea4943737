// Keys and values pooled by several widths (PSA, arXiv 2512.04025), as rows behind one another.
//
// The extended rows of a call's blocks lie block by block: the n rows of block j themselves, then
// for every further width w the means of w adjacent tokens, floor(n / w) rows, and, where w does
// not divide n, one row more: the mean of the last n mod w tokens. A mean that stands for c tokens
// gets the logit bias ln(c). Parts of one bias are *segments*, numbered block by block, in a block
// by level, in a level full groups before the rest. Levels count from 1 (width 1, the tokens).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/segment_attention.h"

namespace sprocket::kernels {

struct SegmentRange {
  int32_t first = 0;
  int32_t count = 0;
};

struct PyramidLayout {
  std::vector<int> widths;                    // [levels], ascending from 1
  std::vector<int64_t> block_offsets;         // [blocks + 1] tokens, from 0
  std::vector<int64_t> segment_rows_offsets;  // [segments + 1] extended rows
  std::vector<double> bias;                   // [segments], natural logarithm
  std::vector<uint8_t> level;                 // [segments]
  std::vector<int32_t> first_segment;         // [blocks + 1]
  std::vector<SegmentRange> ranges;           // [blocks, levels]

  int blocks() const { return static_cast<int>(first_segment.size()) - 1; }
  int levels() const { return static_cast<int>(widths.size()); }
  int segments() const { return static_cast<int>(bias.size()); }
  int64_t tokens() const { return block_offsets.back(); }
  int64_t rows() const { return segment_rows_offsets.back(); }
  // One or two segments. An empty block has one without rows at level 1 and none at the others.
  SegmentRange segments_of(int block, int at_level) const {
    return ranges[static_cast<size_t>(block) * widths.size() + at_level - 1];
  }
  // First extended row of a block.
  int64_t first_row(int block) const { return segment_rows_offsets[first_segment[block]]; }
};

// block_offsets: the call's blocks, [blocks + 1] token rows; only differences count. A block has
// the same segments in every layout of the same widths. widths {1}: segment ids are block ids, no
// bias.
PyramidLayout make_pyramid_layout(std::span<const int64_t> block_offsets,
                                  std::span<const int> widths);

// extended [batch, layout.rows(), heads, head_dim] from the tokens x, all levels in one pass. Every
// mean is the sum of its tokens in ascending order in the accumulator type, divided once.
template <class T>
void expand_pyramid(HeadView<const T> x, const PyramidLayout& layout, int batch, int heads,
                    int head_dim, HeadView<T> extended, int threads);

// The gradient of expand_pyramid: dx[token] += d_extended[its row] + sum over the other levels of
// d_extended[its group] / tokens of the group, levels ascending.
template <class T>
void add_pyramid_gradient(HeadView<const Accumulator<T>> d_extended, const PyramidLayout& layout,
                          int batch, int heads, int head_dim, HeadView<Accumulator<T>> dx,
                          int threads);

// By head, the sum over all (query block, block) pairs of 1 / width for selected ones and 0 for
// skipped ones.
std::vector<double> pyramid_pairs(const SegmentTable& table, const PyramidLayout& layout);

}  // namespace sprocket::kernels

// Segment attention on the CPU: the one attention kernel behind every method and strategy.
//
//   P = exp(scale * q.k + bias - LSE),  O = sum over the listed segments of P v
//
// T is double (proofs), float, or BFloat16 (products accumulate in fp32). Accumulators, LSE and
// delta are double for double and float otherwise; LSE is the natural logarithm, -inf for a query
// row without keys (its O is 0 and its gradients are 0).
//
// Several passes over disjoint parts of the keys continue each other: the forward with `accumulate`
// merges into (out, lse); the backward takes the final LSE and delta and only adds, so the
// gradients of any union of parts are exact (no second softmax).
//
// Deterministic: results do not depend on `threads` or on timing; every sum is made in ascending
// order of blocks.
//
// A call allocates nothing: its memory is the workspace that the caller gives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/bfloat16.h"
#include "kernels/head_view.h"
#include "kernels/segment_table.h"

namespace sprocket::kernels {

template <class T>
struct KvBuffer {
  HeadView<const T> k;
  HeadView<const T> v;
};

template <class T>
struct KvGradBuffer {
  HeadView<Accumulator<T>> dk;
  HeadView<Accumulator<T>> dv;
};

// Called now and then, between tiles, by the thread that made the call: for what has to be advanced
// while it computes, messages under way. Nothing when `call` is null.
struct Progress {
  void (*call)(void* argument) = nullptr;
  void* argument = nullptr;
  void operator()() const {
    if (call) call(argument);
  }
};

// Of batch x heads.
struct HeadRange {
  int64_t first = 0, last = 0;
  int64_t count() const { return last - first; }
};

// What forward and backward share.
template <class T>
struct SegmentAttentionProblem {
  int head_dim = 0;  // any >= 1; 64 and 128 are the tuned ones
  double scale = 1;  // usually 1 / sqrt(head_dim)
  HeadView<const T> q;
  std::span<const int64_t> query_offsets;  // [query_blocks + 1] first row of each query block
  std::span<const KvBuffer<T>> kv;
  const SegmentTable* table = nullptr;
  const KvBlockMap* map = nullptr;
  int threads = 1;
  // [batch * heads * query_blocks] the first rows of each query block that take part; empty: all.
  // The others attend to nothing and have no gradient.
  std::span<const int32_t> query_rows = {};
  std::optional<HeadRange> heads;  // that are computed, nothing else is touched; null: all
  Progress progress;
};

enum class Direction { kForward, kBackward };

// What forward and backward need of `workspace`, in bytes: with W threads, A = min(W, batch *
// heads) heads at work at once, D the head dimension rounded up to a multiple of 16, R the KV rows
// and Q the query rows of one head (odd tiles of 64 rows rounded up to even, query tiles to a
// multiple of 16) and s the size of an element (4 where the processor has no bf16 products),
//   forward   A * 2 s R D
//   backward  A * (2 s R D + 8 R D + 4 Q D)
//   double    forward W * 8 R, backward nothing
// and, for any dtype, A * (tiles' descriptions: 16 bytes per 64 keys, 72 per 64 queries, 5 per
// KV block) + W * (scratch of at most 8 query tiles, below 1.2 MiB up to D = 128). The pointers and
// contents of the buffers and of the table's rows do not matter, nor does the query_rows' content.
template <class T>
int64_t segment_attention_workspace_bytes(const SegmentAttentionProblem<T>& problem,
                                          Direction direction);

// out: [B, Lq, H, D] view; lse: [B, H, Lq] contiguous, Lq = query_offsets.back().
// accumulate false: out and lse are overwritten (rows without keys: 0 and -inf).
// accumulate true: merged into what is there, which a former call (or 0 and -inf) left.
// workspace: any contents, any alignment; fails when it is smaller than
// segment_attention_workspace_bytes.
template <class T>
void segment_attention_forward(const SegmentAttentionProblem<T>& problem,
                               HeadView<Accumulator<T>> out, Accumulator<T>* lse, bool accumulate,
                               std::span<std::byte> workspace);

// delta[b, h, row] = sum_d dout * out, [B, H, Lq] contiguous.
template <class T>
void segment_attention_delta(HeadView<const Accumulator<T>> out, HeadView<const T> dout, int batch,
                             int64_t rows, int heads, int head_dim, Accumulator<T>* delta,
                             int threads);

// Adds to dq ([B, Lq, H, D] view) and to dk, dv of the buffers; the caller zeroes them first.
// Blocks that no query block lists are not touched.
template <class T>
void segment_attention_backward(const SegmentAttentionProblem<T>& problem, HeadView<const T> dout,
                                const Accumulator<T>* lse, const Accumulator<T>* delta,
                                HeadView<Accumulator<T>> dq, std::span<const KvGradBuffer<T>> dkv,
                                std::span<std::byte> workspace);

}  // namespace sprocket::kernels

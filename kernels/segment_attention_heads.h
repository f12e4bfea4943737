// The work of one (batch, head), in the pieces that segment_attention.cc puts in order; one
// implementation for fp64 (plain loops) and one for tiles (fp32 and bf16).
//
// A head is worked on by one thread, or by several that share it. `worker` numbers the calling
// thread, in [0, workers): it selects scratch memory.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/segment_attention.h"

namespace sprocket::kernels {

class ForwardHead {
 public:
  virtual ~ForwardHead() = default;
  virtual void begin(int64_t batch_head) = 0;
  // Once for every KV block, before run.
  virtual void load_keys(int kv_block) = 0;
  virtual void run(int query_block, int worker) = 0;
};

class BackwardHead {
 public:
  virtual ~BackwardHead() = default;
  virtual void begin(int64_t batch_head) = 0;
  virtual void load_keys(int kv_block) = 0;
  // All pairs of the two ranges. Sums run over ascending blocks however a caller cuts the ranges,
  // provided that it calls them in ascending order along each axis.
  virtual void run(int first_query, int last_query, int first_key, int last_key, int worker) = 0;
  // Once for every block, after run: adds the sums to the caller's gradients.
  virtual void store_query_gradients(int query_block, int worker) = 0;
  virtual void store_key_gradients(int kv_block) = 0;
};

template <class T>
struct ForwardArguments {
  SegmentAttentionProblem<T> problem;
  HeadView<Accumulator<T>> out;
  Accumulator<T>* lse;
  bool accumulate;
};

template <class T>
struct BackwardArguments {
  SegmentAttentionProblem<T> problem;
  HeadView<const T> dout;
  const Accumulator<T>* lse;
  const Accumulator<T>* delta;
  HeadView<Accumulator<T>> dq;
  std::span<const KvGradBuffer<T>> dkv;
};

// double: plain loops. float and BFloat16: tiles, by the instruction sets of isa.h.
std::unique_ptr<ForwardHead> make_forward_head(const ForwardArguments<double>&, int workers);
std::unique_ptr<ForwardHead> make_forward_head(const ForwardArguments<float>&, int workers);
std::unique_ptr<ForwardHead> make_forward_head(const ForwardArguments<BFloat16>&, int workers);
std::unique_ptr<BackwardHead> make_backward_head(const BackwardArguments<double>&, int workers);
std::unique_ptr<BackwardHead> make_backward_head(const BackwardArguments<float>&, int workers);
std::unique_ptr<BackwardHead> make_backward_head(const BackwardArguments<BFloat16>&, int workers);

// The query blocks' list of one (batch, head), cut to [first_key, last_key).
std::span<const int32_t> listed_blocks(const SegmentTable& table, int64_t batch_head,
                                       int query_block, int first_key, int last_key);

// Which blocks some query block of (batch, head) lists and the map has rows for.
std::vector<bool> used_blocks(const SegmentTable& table, const KvBlockMap& map, int64_t batch_head);

}  // namespace sprocket::kernels

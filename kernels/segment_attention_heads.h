// The work of one (batch, head), in the pieces that segment_attention_schedule.h hands out: one
// implementation for fp64 (plain loops) and one for tiles (fp32 and bf16).
//
// Several threads may share a head. `worker` numbers the calling thread, in [0, workers): it
// selects scratch memory.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/segment_attention.h"
#include "kernels/segment_attention_plan.h"

namespace sprocket::kernels {

// All pairs of a range of query tiles and a range of KV blocks.
struct Cell {
  int first_tile, last_tile;  // at most group_tiles() of them
  int first_key, last_key;
};

class HeadWork {
 public:
  virtual void begin(int64_t batch_head) = 0;
  // Once for every KV block, before run.
  virtual void load_keys(int first_block, int last_block, int worker) = 0;
  // Each group of tiles goes over the KV blocks in ascending order, from the first to the last. In
  // the backward the cells of one range of KV blocks also run in ascending order of tiles. However
  // the ranges are cut, every sum is then made in ascending order.
  virtual void run(const Cell& cell, int worker) = 0;

  const HeadPlan& plan() const { return plan_; }
  int group_tiles() const { return group_tiles_; }
  // What is kept for the keys of a head, at most.
  int64_t key_bytes() const { return key_bytes_; }

 protected:
  HeadWork(const HeadPlan& plan, int group_tiles, int64_t key_bytes = 1)
      : plan_(plan), group_tiles_(group_tiles), key_bytes_(key_bytes) {}
  HeadWork(const HeadWork&) = default;
  ~HeadWork() = default;

  std::span<const QueryTile> tiles_of(const Cell& cell) const {
    return plan_.query_tiles().subspan(cell.first_tile, cell.last_tile - cell.first_tile);
  }

  HeadPlan plan_;
  int group_tiles_;
  int64_t key_bytes_;
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

template <class T>
PlanSource plan_source(const SegmentAttentionProblem<T>& problem) {
  return {problem.table, problem.map, problem.query_offsets, problem.query_rows};
}

// The memory of `workers` threads, and `heads.size()` heads that may be at work at once. While
// counting only takes the memory.
// double: plain loops. float and BFloat16: tiles, by the instruction sets of isa.h.
void make_heads(const ForwardArguments<double>&, const PlanSizes&, int workers, WorkspaceArena&,
                std::span<HeadWork*> heads);
void make_heads(const ForwardArguments<float>&, const PlanSizes&, int workers, WorkspaceArena&,
                std::span<HeadWork*> heads);
void make_heads(const ForwardArguments<BFloat16>&, const PlanSizes&, int workers, WorkspaceArena&,
                std::span<HeadWork*> heads);
void make_heads(const BackwardArguments<double>&, const PlanSizes&, int workers, WorkspaceArena&,
                std::span<HeadWork*> heads);
void make_heads(const BackwardArguments<float>&, const PlanSizes&, int workers, WorkspaceArena&,
                std::span<HeadWork*> heads);
void make_heads(const BackwardArguments<BFloat16>&, const PlanSizes&, int workers, WorkspaceArena&,
                std::span<HeadWork*> heads);

// Heads that work on tiles, with the scratch memory of their threads. Head::Scratch is trivially
// copyable.
template <class Head, class Arguments>
void make_tiled_heads(const Arguments& arguments, const PlanSizes& sizes, int workers,
                      WorkspaceArena& arena, std::span<HeadWork*> heads) {
  using Scratch = typename Head::Scratch;
  const int dim = round_up(arguments.problem.head_dim, 16);
  Scratch* const scratch = arena.take<Scratch>(workers);
  for (int i = 0; i < workers; ++i) {
    const Scratch made(dim, Head::group_tiles(dim), arena);
    if (scratch != nullptr) new (scratch + i) Scratch(made);
  }
  for (size_t i = 0; i < heads.size(); ++i) {
    HeadWork* const head = arena.place(Head(arguments, sizes, scratch, arena));
    if (head != nullptr) heads[i] = head;
  }
}

// A group of query tiles whose packed rows and sums, of `tile_bytes` each, stay in a core's cache
// while keys go by.
constexpr int group_tiles_for(int64_t tile_bytes) {
  constexpr int64_t kGroupBytes = int64_t{512} << 10;  // half of a core's second-level cache
  const int64_t fitting = kGroupBytes / tile_bytes;
  return static_cast<int>(fitting < 1 ? 1 : fitting > kMaxGroupTiles ? kMaxGroupTiles : fitting);
}

}  // namespace sprocket::kernels

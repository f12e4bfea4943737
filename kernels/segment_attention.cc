#include "kernels/segment_attention.h"

#include <omp.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/lanes.h"
#include "kernels/segment_attention_schedule.h"

namespace sprocket::kernels {
namespace {

template <class T>
HeadRange heads_of(const SegmentAttentionProblem<T>& problem) {
  return problem.heads.value_or(HeadRange{0, int64_t{problem.table->batch} * problem.table->heads});
}

template <class T>
void check_query_rows(const SegmentAttentionProblem<T>& problem) {
  const auto rows = problem.query_rows;
  if (rows.empty()) return;
  const SegmentTable& table = *problem.table;
  SPROCKET_CHECK_EQ(static_cast<int64_t>(rows.size()), table.rows());
  for (size_t i = 0; i < rows.size(); ++i) {
    const size_t block = i % table.query_blocks;
    const int64_t all = problem.query_offsets[block + 1] - problem.query_offsets[block];
    SPROCKET_CHECK(rows[i] >= 0 && rows[i] <= all, "query block {} uses {} of its {} rows", i,
                   rows[i], all);
  }
}

template <class T>
void check_problem(const SegmentAttentionProblem<T>& problem) {
  SPROCKET_CHECK(problem.table != nullptr && problem.map != nullptr,
                 "a table and a map are needed");
  const SegmentTable& table = *problem.table;
  const KvBlockMap& map = *problem.map;
  const int64_t heads = static_cast<int64_t>(table.batch) * table.heads;
  SPROCKET_CHECK_GE(problem.head_dim, 1);
  SPROCKET_CHECK_GE(problem.threads, 1);
  SPROCKET_CHECK_EQ(static_cast<int64_t>(table.row_offsets.size()), table.rows() + 1);
  SPROCKET_CHECK_EQ(static_cast<int64_t>(problem.query_offsets.size()), table.query_blocks + 1L);
  SPROCKET_CHECK_EQ(map.kv_blocks, table.kv_blocks);
  SPROCKET_CHECK_EQ(static_cast<int64_t>(map.blocks.size()),
                    map.kv_blocks * (map.per_head ? heads : 1));
  for (const KvBlock& block : map.blocks) {
    SPROCKET_CHECK(block.rows == 0 || (block.rows > 0 && block.buffer >= 0 &&
                                       block.buffer < static_cast<int>(problem.kv.size())),
                   "a KV block names buffer {} of {} with {} rows", block.buffer, problem.kv.size(),
                   block.rows);
  }
  check_query_rows(problem);
  const HeadRange range = heads_of(problem);
  SPROCKET_CHECK(0 <= range.first && range.first <= range.last && range.last <= heads,
                 "heads {} to {} of {}", range.first, range.last, heads);
}

template <class T>
void check_table(const SegmentAttentionProblem<T>& problem) {
  const SegmentTable& table = *problem.table;
  for (int64_t row = 0; row < table.rows(); ++row) {
    int previous = -1;
    for (int64_t i = table.row_offsets[row]; i < table.row_offsets[row + 1]; ++i) {
      const int block = table.kv_block[i];
      SPROCKET_CHECK(block > previous && block < table.kv_blocks,
                     "row {} of the table lists block {} after {}; ids ascend and are below {}",
                     row, block, previous, table.kv_blocks);
      previous = block;
    }
  }
}

template <class T>
struct Dot {
  SPROCKET_INLINE static void run(const Accumulator<T>* a, const T* b, int dim,
                                  Accumulator<T>* to) {
    using A = Accumulator<T>;
    Lanes<A> sums = {};
    int d = 0;
    for (; d + kLanes<A> <= dim; d += kLanes<A>) sums += load(a + d) * load(b + d);
    A sum = sum_of_lanes<A>(sums);
    for (; d < dim; ++d) sum += a[d] * static_cast<A>(b[d]);
    *to = sum;
  }
};

// Everything that a call takes from its workspace; without memory it only counts.
template <class Arguments>
struct Call {
  Call(const Arguments& arguments, bool ordered, WorkspaceArena& arena)
      : sizes(plan_sizes(plan_source(arguments.problem))),
        workers(worker_count(arguments.problem, sizes)),
        schedule({heads_of(arguments.problem), arguments.problem.table->kv_blocks,
                  sizes.query_tiles, workers, ordered},
                 arena) {
    make_heads(arguments, sizes, workers, arena, schedule.heads());
  }

  // More threads than tiles would only wait.
  template <class Problem>
  static int worker_count(const Problem& problem, const PlanSizes& sizes) {
    const int64_t tiles = heads_of(problem).count() * sizes.query_tiles;
    return static_cast<int>(std::clamp<int64_t>(tiles, 1, problem.threads));
  }

  void run() {
#pragma omp parallel num_threads(workers) if (workers > 1)
    schedule.work(omp_get_thread_num());
  }

  PlanSizes sizes;
  int workers;
  HeadSchedule schedule;
};

template <class Arguments>
int64_t workspace_bytes(const Arguments& arguments, bool ordered) {
  WorkspaceArena counting;
  const Call<Arguments> call(arguments, ordered, counting);
  return counting.bytes();
}

template <class Arguments>
void run_call(const Arguments& arguments, bool ordered, std::span<std::byte> workspace) {
  const int64_t needed = workspace_bytes(arguments, ordered);
  SPROCKET_CHECK(static_cast<int64_t>(workspace.size()) >= needed,
                 "the workspace has {} bytes and needs {}", workspace.size(), needed);
  WorkspaceArena arena(workspace);
  Call<Arguments> call(arguments, ordered, arena);
  call.run();
}

}  // namespace

template <class T>
int64_t segment_attention_workspace_bytes(const SegmentAttentionProblem<T>& problem,
                                          Direction direction) {
  check_problem(problem);
  switch (direction) {
    case Direction::kForward:
      return workspace_bytes(ForwardArguments<T>{problem, {}, nullptr, false}, false);
    case Direction::kBackward:
      return workspace_bytes(BackwardArguments<T>{problem, {}, nullptr, nullptr, {}, {}}, true);
  }
  return 0;
}

template <class T>
void segment_attention_forward(const SegmentAttentionProblem<T>& problem,
                               HeadView<Accumulator<T>> out, Accumulator<T>* lse, bool accumulate,
                               std::span<std::byte> workspace) {
  check_problem(problem);
  check_table(problem);
  run_call(ForwardArguments<T>{problem, out, lse, accumulate}, false, workspace);
}

template <class T>
void segment_attention_delta(HeadView<const Accumulator<T>> out, HeadView<const T> dout, int batch,
                             int64_t rows, int heads, int head_dim, Accumulator<T>* delta,
                             int threads) {
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
  for (int b = 0; b < batch; ++b) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int h = 0; h < heads; ++h) {
        run_on_isa<Dot<T>>(out.row(b, row, h), dout.row(b, row, h), head_dim,
                           delta + (static_cast<int64_t>(b) * heads + h) * rows + row);
      }
    }
  }
}

template <class T>
void segment_attention_backward(const SegmentAttentionProblem<T>& problem, HeadView<const T> dout,
                                const Accumulator<T>* lse, const Accumulator<T>* delta,
                                HeadView<Accumulator<T>> dq, std::span<const KvGradBuffer<T>> dkv,
                                std::span<std::byte> workspace) {
  check_problem(problem);
  check_table(problem);
  SPROCKET_CHECK_EQ(dkv.size(), problem.kv.size());
  run_call(BackwardArguments<T>{problem, dout, lse, delta, dq, dkv}, true, workspace);
}

#define SPROCKET_INSTANTIATE(T)                                                                    \
  template int64_t segment_attention_workspace_bytes<T>(const SegmentAttentionProblem<T>&,         \
                                                        Direction);                                \
  template void segment_attention_forward<T>(const SegmentAttentionProblem<T>&,                    \
                                             HeadView<Accumulator<T>>, Accumulator<T>*, bool,      \
                                             std::span<std::byte>);                                \
  template void segment_attention_delta<T>(HeadView<const Accumulator<T>>, HeadView<const T>, int, \
                                           int64_t, int, int, Accumulator<T>*, int);               \
  template void segment_attention_backward<T>(                                                     \
      const SegmentAttentionProblem<T>&, HeadView<const T>, const Accumulator<T>*,                 \
      const Accumulator<T>*, HeadView<Accumulator<T>>, std::span<const KvGradBuffer<T>>,           \
      std::span<std::byte>);
SPROCKET_INSTANTIATE(double)
SPROCKET_INSTANTIATE(float)
SPROCKET_INSTANTIATE(BFloat16)
#undef SPROCKET_INSTANTIATE

}  // namespace sprocket::kernels

#include "kernels/segment_attention.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "base/error.h"
#include "kernels/lanes.h"
#include "kernels/segment_attention_heads.h"

namespace sprocket::kernels {
namespace {

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

struct Extent {
  int64_t heads;
  int query_blocks;
  int kv_blocks;
  int threads;
};

template <class T>
Extent extent_of(const SegmentAttentionProblem<T>& problem) {
  const SegmentTable& table = *problem.table;
  const int64_t heads = static_cast<int64_t>(table.batch) * table.heads;
  // More threads than blocks would only wait.
  const int64_t most = std::max<int64_t>(1, heads * std::max(table.query_blocks, 1));
  return {heads, table.query_blocks, table.kv_blocks,
          static_cast<int>(std::min<int64_t>(problem.threads, most))};
}

// As many heads as divide among the threads are worked on by one thread each; the rest by all
// threads together, one head after the other.
template <class Head>
struct Crew {
  std::vector<std::unique_ptr<Head>> own;  // one per thread
  std::unique_ptr<Head> shared;
  int64_t whole;  // heads worked on by one thread

  template <class Make>
  Crew(const Extent& extent, Make make) : whole(extent.heads / extent.threads * extent.threads) {
    if (whole > 0) {
      for (int i = 0; i < extent.threads; ++i) own.push_back(make(1));
    }
    if (whole < extent.heads) shared = make(extent.threads);
  }
};

void run_forward(const Extent& extent, Crew<ForwardHead> crew) {
#pragma omp parallel num_threads(extent.threads) if (crew.whole > 0 && extent.threads > 1)
  {
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < crew.whole; ++i) {
      ForwardHead& head = *crew.own[omp_get_thread_num()];
      head.begin(i);
      for (int block = 0; block < extent.kv_blocks; ++block) head.load_keys(block);
      for (int block = 0; block < extent.query_blocks; ++block) head.run(block, 0);
    }
  }
  for (int64_t i = crew.whole; i < extent.heads; ++i) {
    ForwardHead& head = *crew.shared;
    head.begin(i);
#pragma omp parallel num_threads(extent.threads)
    {
#pragma omp for schedule(static)
      for (int block = 0; block < extent.kv_blocks; ++block) head.load_keys(block);
#pragma omp for schedule(dynamic, 1)
      for (int block = 0; block < extent.query_blocks; ++block) {
        head.run(block, omp_get_thread_num());
      }
    }
  }
}

// The grid of (query chunk, key chunk): every sum keeps its ascending order if a pair of chunks
// runs after the pair to its left and the pair above. Threads take whole rows of the grid, from the
// top; a row stays one chunk behind the row above it.
class PairGrid {
 public:
  explicit PairGrid(const Extent& extent)
      : extent_(extent),
        query_chunks_(std::min(extent.query_blocks, 4 * extent.threads)),
        key_chunks_(std::min(extent.kv_blocks, 4 * extent.threads)),
        finished_(query_chunks_) {}

  // By every thread of a team.
  void run(BackwardHead& head, int worker) {
    for (int q = next_row_++; q < query_chunks_; q = next_row_++) {
      for (int k = 0; k < key_chunks_; ++k) {
        if (q > 0) wait_for(finished_[q - 1], k + 1);
        head.run(cut(extent_.query_blocks, q, query_chunks_),
                 cut(extent_.query_blocks, q + 1, query_chunks_),
                 cut(extent_.kv_blocks, k, key_chunks_), cut(extent_.kv_blocks, k + 1, key_chunks_),
                 worker);
        finished_[q].store(k + 1, std::memory_order_release);
        finished_[q].notify_all();
      }
    }
  }

 private:
  static int cut(int blocks, int chunk, int chunks) {
    return static_cast<int>(int64_t{blocks} * chunk / chunks);
  }
  static void wait_for(const std::atomic<int>& finished, int count) {
    for (int seen = finished.load(std::memory_order_acquire); seen < count;
         seen = finished.load(std::memory_order_acquire)) {
      finished.wait(seen, std::memory_order_acquire);
    }
  }

  Extent extent_;
  int query_chunks_, key_chunks_;
  std::vector<std::atomic<int>> finished_;  // key chunks of each row
  std::atomic<int> next_row_ = 0;
};

void run_backward(const Extent& extent, Crew<BackwardHead> crew) {
#pragma omp parallel num_threads(extent.threads) if (crew.whole > 0 && extent.threads > 1)
  {
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < crew.whole; ++i) {
      BackwardHead& head = *crew.own[omp_get_thread_num()];
      head.begin(i);
      for (int block = 0; block < extent.kv_blocks; ++block) head.load_keys(block);
      head.run(0, extent.query_blocks, 0, extent.kv_blocks, 0);
      for (int block = 0; block < extent.query_blocks; ++block)
        head.store_query_gradients(block, 0);
      for (int block = 0; block < extent.kv_blocks; ++block) head.store_key_gradients(block);
    }
  }
  for (int64_t i = crew.whole; i < extent.heads; ++i) {
    BackwardHead& head = *crew.shared;
    head.begin(i);
    PairGrid grid(extent);
#pragma omp parallel num_threads(extent.threads)
    {
#pragma omp for schedule(static)
      for (int block = 0; block < extent.kv_blocks; ++block) head.load_keys(block);
      grid.run(head, omp_get_thread_num());
#pragma omp barrier
#pragma omp for schedule(static)
      for (int block = 0; block < extent.query_blocks; ++block) {
        head.store_query_gradients(block, omp_get_thread_num());
      }
#pragma omp for schedule(static)
      for (int block = 0; block < extent.kv_blocks; ++block) head.store_key_gradients(block);
    }
  }
}

}  // namespace

std::span<const int32_t> listed_blocks(const SegmentTable& table, int64_t batch_head,
                                       int query_block, int first_key, int last_key) {
  const int64_t row = batch_head * table.query_blocks + query_block;
  const auto begin = table.kv_block.begin() + table.row_offsets[row];
  const auto end = table.kv_block.begin() + table.row_offsets[row + 1];
  const auto first = std::lower_bound(begin, end, first_key);
  return {first, std::lower_bound(first, end, last_key)};
}

std::vector<bool> used_blocks(const SegmentTable& table, const KvBlockMap& map,
                              int64_t batch_head) {
  std::vector<bool> used(table.kv_blocks, false);
  const int64_t first = table.row_offsets[batch_head * table.query_blocks];
  const int64_t last = table.row_offsets[(batch_head + 1) * table.query_blocks];
  for (int64_t i = first; i < last; ++i) {
    used[table.kv_block[i]] = map.at(batch_head, table.kv_block[i]).rows > 0;
  }
  return used;
}

template <class T>
void segment_attention_forward(const SegmentAttentionProblem<T>& problem,
                               HeadView<Accumulator<T>> out, Accumulator<T>* lse, bool accumulate) {
  check_problem(problem);
  const Extent extent = extent_of(problem);
  const ForwardArguments<T> arguments{problem, out, lse, accumulate};
  run_forward(extent, Crew<ForwardHead>(extent, [&](int workers) {
                return make_forward_head(arguments, workers);
              }));
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
                                HeadView<Accumulator<T>> dq, std::span<const KvGradBuffer<T>> dkv) {
  check_problem(problem);
  SPROCKET_CHECK_EQ(dkv.size(), problem.kv.size());
  const Extent extent = extent_of(problem);
  const BackwardArguments<T> arguments{problem, dout, lse, delta, dq, dkv};
  run_backward(extent, Crew<BackwardHead>(extent, [&](int workers) {
                 return make_backward_head(arguments, workers);
               }));
}

#define SPROCKET_INSTANTIATE(T)                                                                    \
  template void segment_attention_forward<T>(const SegmentAttentionProblem<T>&,                    \
                                             HeadView<Accumulator<T>>, Accumulator<T>*, bool);     \
  template void segment_attention_delta<T>(HeadView<const Accumulator<T>>, HeadView<const T>, int, \
                                           int64_t, int, int, Accumulator<T>*, int);               \
  template void segment_attention_backward<T>(                                                     \
      const SegmentAttentionProblem<T>&, HeadView<const T>, const Accumulator<T>*,                 \
      const Accumulator<T>*, HeadView<Accumulator<T>>, std::span<const KvGradBuffer<T>>);
SPROCKET_INSTANTIATE(double)
SPROCKET_INSTANTIATE(float)
SPROCKET_INSTANTIATE(BFloat16)
#undef SPROCKET_INSTANTIATE

}  // namespace sprocket::kernels

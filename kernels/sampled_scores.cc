#include "kernels/sampled_scores.h"

#include <omp.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "base/error.h"
#include "kernels/aligned_buffer.h"
#include "kernels/lanes.h"
#include "kernels/panel_product.h"
#include "kernels/tile_products.h"

// A tile of logits is stored keys-major, [keys][64 queries]: maxima and sums over keys run down the
// columns, a vector of queries at a time. It is always 64 queries wide, so that LIBXSMM keeps one
// chain of multiply-adds per element.

namespace sprocket::kernels {
namespace {

constexpr int kColumns = 64;        // queries of a tile
constexpr int kTileKeys = 64;       // keys of a tile
constexpr int kGroupColumns = 128;  // queries that pass over the keys together, about

// block_maximum[c] = max(block_maximum[c], the tile's column c)
template <class A>
struct MaximumKernel {
  SPROCKET_INLINE static void run(const A* tile, int keys, A* block_maximum) {
    for (int c = 0; c < kColumns; c += kLanes<A>) {
      Lanes<A> largest = load(block_maximum + c);
      for (int key = 0; key < keys; ++key) {
        const Lanes<A> x = load(tile + key * kColumns + c);
        largest = x > largest ? x : largest;
      }
      store(block_maximum + c, largest);
    }
  }
};

// Raises the running maximum to the block's, and adds exp(scale * (x - maximum)) of the tile to
// sum.
template <class A>
struct SumKernel {
  SPROCKET_INLINE static void run(const A* tile, int keys, A scale, const A* block_maximum,
                                  A* maximum, A* sum) {
    for (int c = 0; c < kColumns; c += kLanes<A>) {
      const Lanes<A> former = load(maximum + c), largest = load(block_maximum + c);
      const Lanes<A> raised = largest > former ? largest : former;
      Lanes<A> total = load(sum + c) * exp_of_lanes((former - raised) * scale);
      for (int key = 0; key < keys; ++key) {
        total += exp_of_lanes((load(tile + key * kColumns + c) - raised) * scale);
      }
      store(maximum + c, raised);
      store(sum + c, total);
    }
  }
};

// scores[j] = the largest E of the query columns [0, count), 0 where none is a number. Row j of
// block_maxima starts at j * stride; sum may be null.
template <class A>
struct RowKernel {
  SPROCKET_INLINE static void run(const A* block_maxima, int64_t stride, const A* maximum,
                                  const A* sum, int count, A scale, int64_t blocks, A* scores) {
    for (int64_t j = 0; j < blocks; ++j) {
      Lanes<A> largest{};
      for (int c = 0; c < count; c += kLanes<A>) {
        const int lanes = std::min(kLanes<A>, count - c);
        const A* maxima = block_maxima + j * stride + c;
        const Lanes<A> m = lanes == kLanes<A> ? load(maxima) : load_first(maxima, lanes);
        const Lanes<A> top =
            lanes == kLanes<A> ? load(maximum + c) : load_first(maximum + c, lanes);
        Lanes<A> e = exp_of_lanes((m - top) * scale);
        if (sum != nullptr) {
          // Lanes behind the last query: 1 / 0 must not become a score.
          const Lanes<A> total = lanes == kLanes<A> ? load(sum + c) : load_first(sum + c, lanes);
          e = total > 0 ? e / total : Lanes<A>{};
        }
        if (lanes < kLanes<A>) {
          A kept[kLanes<A>];
          store(kept, e);
          e = load_first(static_cast<const A*>(kept), lanes);
        }
        largest = e > largest ? e : largest;
      }
      scores[j] = largest_of_lanes<A>(largest);
    }
  }
};

// maximum[c] = max(maximum[c], block_maximum[c])
template <class A>
struct RaiseKernel {
  SPROCKET_INLINE static void run(const A* block_maximum, A* maximum) {
    for (int c = 0; c < kColumns; c += kLanes<A>) {
      const Lanes<A> former = load(maximum + c), largest = load(block_maximum + c);
      store(maximum + c, largest > former ? largest : former);
    }
  }
};

// Where keys of one block lie in a tile.
struct Piece {
  int64_t block;  // among the video blocks
  int first_key;
  int keys;
};

// The logits of a tile without their scale.
template <class A>
class TileLogits {
 public:
  explicit TileLogits(int head_dim) : head_dim_(head_dim), products_(head_dim) {}

  // tile[keys][64] = k[keys][head_dim] q[head_dim][64]
  void operator()(const A* k, int keys, const A* q, A* tile) {
    if constexpr (std::is_same_v<A, float>) {
      if (head_dim_ % 16 == 0) {
        products_.select(keys, kColumns);
        products_.scores(k, q, tile);
        return;
      }
    }
    panel_product<A>({k, 0, head_dim_, 1}, {q, 0, kColumns, 1}, 1, keys, kColumns, head_dim_, 1,
                     tile, 1);
  }

 private:
  int head_dim_;
  TileProducts<float> products_;
};

template <class A>
class Worker {
 public:
  Worker(const SampledScoreProblem<A>& problem, int group_blocks)
      : p_(problem),
        group_blocks_(group_blocks),
        columns_((group_blocks * problem.samples + kColumns - 1) / kColumns * kColumns),
        video_blocks_(problem.kv_blocks - problem.prefix_blocks),
        logits_(problem.head_dim),
        scores_(video_blocks_) {
    q_ = q_buffer_.reserve(static_cast<size_t>(columns_) * p_.head_dim);
    tile_ = tile_buffer_.reserve(kTileKeys * kColumns);
    maxima_ = maxima_buffer_.reserve(static_cast<size_t>(columns_) * video_blocks_);
    maximum_ = maximum_buffer_.reserve(columns_);
    sum_ = sum_buffer_.reserve(columns_);
  }

  // Scores of the call's query blocks [first, last), at most group_blocks.
  void run(int thread, int64_t batch_head, int first, int last, ScoreRowSink<A>& sink) {
    pack_queries(batch_head, first, last);
    std::fill_n(maximum_, columns_, std::numeric_limits<A>::lowest());
    std::fill_n(sum_, columns_, A{0});
    std::fill_n(maxima_, columns_ * video_blocks_, -std::numeric_limits<A>::infinity());
    const int64_t keys = video_blocks_ * p_.samples;
    const A* k = p_.k + (batch_head * p_.kv_blocks + p_.prefix_blocks) * p_.samples * p_.head_dim;
    for (int64_t key = 0; key < keys; key += kTileKeys) {
      pass_tile(k + key * p_.head_dim, key,
                static_cast<int>(std::min<int64_t>(kTileKeys, keys - key)));
    }
    for (int block = first; block < last; ++block) {
      write_row(block, (block - first) * p_.samples);
      sink.take(thread, batch_head, block, scores_);
    }
  }

 private:
  // q_[tile][d][64]; columns behind the last query are 0.
  void pack_queries(int64_t batch_head, int first, int last) {
    const A* from = p_.q + (batch_head * p_.query_blocks + first) * p_.samples * p_.head_dim;
    const int used = (last - first) * p_.samples;
    for (int tile = 0; tile < columns_; tile += kColumns) {
      A* to = q_ + static_cast<int64_t>(tile) * p_.head_dim;
      for (int c = 0; c < kColumns; ++c) {
        const A* row = from + static_cast<int64_t>(tile + c) * p_.head_dim;
        for (int d = 0; d < p_.head_dim; ++d)
          to[d * kColumns + c] = tile + c < used ? row[d] : A{0};
      }
    }
  }

  void find_pieces(int64_t first_key, int keys) {
    pieces_.clear();
    const int64_t m = p_.samples, end = first_key + keys;
    for (int64_t block = first_key / m; block * m < end; ++block) {
      const int64_t used = p_.k_counts[p_.prefix_blocks + block];
      const int64_t first = std::max(first_key, block * m), last = std::min(end, block * m + used);
      if (first >= last) continue;
      pieces_.push_back(
          {block, static_cast<int>(first - first_key), static_cast<int>(last - first)});
    }
  }

  void pass_tile(const A* k, int64_t first_key, int keys) {
    find_pieces(first_key, keys);
    for (int column = 0; column < columns_; column += kColumns) {
      logits_(k, keys, q_ + static_cast<int64_t>(column) * p_.head_dim, tile_);
      for (const Piece& piece : pieces_) {
        A* block_maximum = maxima_ + piece.block * columns_ + column;
        const A* rows = tile_ + piece.first_key * kColumns;
        run_on_isa<MaximumKernel<A>>(rows, piece.keys, block_maximum);
        if (p_.score == SampledScore::kSoftmax) {
          run_on_isa<SumKernel<A>>(rows, piece.keys, static_cast<A>(p_.scale),
                                   static_cast<const A*>(block_maximum), maximum_ + column,
                                   sum_ + column);
        } else {
          run_on_isa<RaiseKernel<A>>(static_cast<const A*>(block_maximum), maximum_ + column);
        }
      }
    }
  }

  void write_row(int block, int column) {
    run_on_isa<RowKernel<A>>(static_cast<const A*>(maxima_ + column),
                             static_cast<int64_t>(columns_),
                             static_cast<const A*>(maximum_ + column),
                             p_.score == SampledScore::kSoftmax ? sum_ + column : nullptr,
                             static_cast<int>(p_.q_counts[block]), static_cast<A>(p_.scale),
                             video_blocks_, scores_.data());
  }

  const SampledScoreProblem<A>& p_;
  int group_blocks_;
  int columns_;
  int64_t video_blocks_;
  TileLogits<A> logits_;
  std::vector<Piece> pieces_;
  std::vector<A> scores_;
  AlignedBuffer<A> q_buffer_, tile_buffer_, maxima_buffer_, maximum_buffer_, sum_buffer_;
  A *q_, *tile_, *maxima_, *maximum_, *sum_;
};

}  // namespace

template <class A>
void sampled_scores(const SampledScoreProblem<A>& problem, ScoreRowSink<A>& sink) {
  SPROCKET_CHECK(problem.samples >= 1 && problem.head_dim >= 1 && problem.scale > 0,
                 "{} samples of dimension {}, scale {}", problem.samples, problem.head_dim,
                 problem.scale);
  SPROCKET_CHECK(problem.prefix_blocks >= 0 && problem.prefix_blocks <= problem.kv_blocks,
                 "{} prefix blocks of {}", problem.prefix_blocks, problem.kv_blocks);
  SPROCKET_CHECK_EQ(problem.q_counts.size(), static_cast<size_t>(problem.query_blocks));
  SPROCKET_CHECK_EQ(problem.k_counts.size(), static_cast<size_t>(problem.kv_blocks));
  const int first =
      std::clamp(problem.prefix_blocks - problem.first_query_block, 0, problem.query_blocks);
  const int group = std::max(1, kGroupColumns / problem.samples);
  const int64_t groups = (problem.query_blocks - first + group - 1) / group;
  const int64_t batch_heads = static_cast<int64_t>(problem.batch) * problem.heads;
#pragma omp parallel num_threads(problem.threads)
  {
    Worker<A> worker(problem, group);
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t batch_head = 0; batch_head < batch_heads; ++batch_head) {
      for (int64_t g = 0; g < groups; ++g) {
        const int begin = first + static_cast<int>(g) * group;
        worker.run(omp_get_thread_num(), batch_head, begin,
                   std::min(begin + group, problem.query_blocks), sink);
      }
    }
  }
}

template void sampled_scores(const SampledScoreProblem<float>&, ScoreRowSink<float>&);
template void sampled_scores(const SampledScoreProblem<double>&, ScoreRowSink<double>&);

}  // namespace sprocket::kernels

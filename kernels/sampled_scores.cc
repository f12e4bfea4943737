#include "kernels/sampled_scores.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numbers>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "kernels/aligned_buffer.h"
#include "kernels/lanes.h"
#include "kernels/panel_product.h"
#include "kernels/tile_ops.h"
#include "kernels/tile_products.h"

// A tile of logits is stored keys-major, [keys][64 queries]: maxima and sums over keys run down the
// columns, a vector of queries at a time. It is always 64 queries wide, so that LIBXSMM keeps one
// chain of multiply-adds per element.

namespace sprocket::kernels {
namespace {

constexpr int kColumns = 64;        // queries of a tile
constexpr int kTileKeys = 64;       // keys of a tile
constexpr int kGroupColumns = 128;  // queries that pass over the keys together, about

// 2^x for x <= 0 as the sums need it: relative error below 2^-22, at least 2^-126, NaN stays NaN.
SPROCKET_INLINE Lanes<float> exp2_of_nonpositive(Lanes<float> x) {
  using V = Lanes<float>;
  using I = IntegerLanes<float>;
  x = x < -126.0f ? V{} - 126.0f : x;
  const float kRound = 0x1.8p23f;
  const V shifted = x + kRound;
  const V f = x - (shifted - kRound);
  // 1 + f g(f), fitted on [-1/2, 1/2] to a relative error of 9.2e-8.
  V p = f * 0.00132647272f + 0.00967151281f;
  p = p * f + 0.0555073374f;
  p = p * f + 0.240222421f;
  p = p * f + 0.693146978f;
  p = p * f + 1.0f;
  return p * (V)(((I)shifted - (I)(V{} + kRound) + 127) << 23);
}
SPROCKET_INLINE Lanes<double> exp2_of_nonpositive(Lanes<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_exp2(x[i]);
  return x;
}

// Raises block_maximum and maximum to the tile's columns and, if sum is not null, adds
// 2^(factor * (x - maximum)) of the tile to it.
template <class A>
struct TileKernel {
  SPROCKET_INLINE static void run(const A* tile, int keys, A factor, A* block_maximum, A* maximum,
                                  A* sum) {
    for (int c = 0; c < kColumns; c += kLanes<A>) {
      Lanes<A> largest = load(block_maximum + c);
      for (int key = 0; key < keys; ++key) {
        const Lanes<A> x = load(tile + key * kColumns + c);
        largest = x > largest ? x : largest;
      }
      store(block_maximum + c, largest);
      const Lanes<A> former = load(maximum + c);
      const Lanes<A> raised = largest > former ? largest : former;
      store(maximum + c, raised);
      if (sum == nullptr) continue;
      Lanes<A> total = load(sum + c) * exp2_of_nonpositive((former - raised) * factor);
      for (int key = 0; key < keys; ++key) {
        total += exp2_of_nonpositive((load(tile + key * kColumns + c) - raised) * factor);
      }
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
        if (sum != nullptr) e /= lanes == kLanes<A> ? load(sum + c) : load_first(sum + c, lanes);
        if (lanes < kLanes<A>) {  // what is behind the last query is no score
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

// Where keys of one block lie in a tile.
struct Piece {
  int64_t block;  // among the video blocks
  int first_key;
  int keys;
};

// to[i] = x[i], which are bf16 values: nothing is rounded. count is a multiple of 16.
struct NarrowKernel {
  SPROCKET_INLINE static void run(const float* x, int64_t count, BFloat16* to) {
    typedef uint16_t Half __attribute__((vector_size(32)));
    typedef uint32_t Word __attribute__((vector_size(64)));
    for (int64_t i = 0; i < count; i += kLanes<float>) {
      const Half half = __builtin_convertvector((Word)load(x + i) >> 16, Half);
      std::memcpy(static_cast<void*>(to + i), &half, sizeof half);
    }
  }
};

// The logits of tiles, without their scale.
template <class A>
class TileLogits {
 public:
  TileLogits(const SampledScoreProblem<A>& problem, int columns)
      : head_dim_(problem.head_dim), products_(head_dim_), half_products_(head_dim_) {
    const bool fits = std::is_same_v<A, float> && head_dim_ % 16 == 0;
    if (!fits) {
      path_ = Path::kPanel;
    } else if (problem.bfloat16_values && has_bf16_products()) {
      path_ = Path::kHalf;
      half_queries_.reserve(static_cast<size_t>(columns) * head_dim_);
      half_keys_.reserve(static_cast<size_t>(kTileKeys) * head_dim_);
    } else {
      path_ = Path::kSingle;
    }
    queries_.reserve(static_cast<size_t>(columns) * head_dim_);
  }

  // q: [used][head_dim]. Columns behind the last query are 0.
  void set_queries(const A* q, int used, int columns) {
    for (int tile = 0; tile < columns; tile += kColumns) {
      A* to = queries_.data() + static_cast<int64_t>(tile) * head_dim_;
      for (int c = 0; c < kColumns; ++c) {
        const A* row = q + static_cast<int64_t>(tile + c) * head_dim_;
        for (int d = 0; d < head_dim_; ++d) to[d * kColumns + c] = tile + c < used ? row[d] : A{0};
      }
    }
    if constexpr (std::is_same_v<A, float>) {
      if (path_ != Path::kHalf) return;
      for (int64_t d = 0; d < static_cast<int64_t>(columns / kColumns) * head_dim_; ++d) {
        BFloat16* to = half_queries_.data() + d / 2 * 2 * kColumns + d % 2;
        for (int c = 0; c < kColumns; ++c) to[2 * c] = BFloat16(queries_.data()[d * kColumns + c]);
      }
    }
  }

  // k: [keys][head_dim], which must stay until the next call.
  void set_keys(const A* k, int keys) {
    k_ = k;
    keys_ = keys;
    if constexpr (std::is_same_v<A, float>) {
      if (path_ == Path::kHalf) {
        half_products_.select(keys, kColumns);
        run_on_isa<NarrowKernel>(k, static_cast<int64_t>(keys) * head_dim_, half_keys_.data());
      } else if (path_ == Path::kSingle) {
        products_.select(keys, kColumns);
      }
    }
  }

  // tile[keys][64] of the queries from `column` on.
  void multiply(int column, A* tile) {
    const int64_t first = static_cast<int64_t>(column) * head_dim_;
    if constexpr (std::is_same_v<A, float>) {
      if (path_ == Path::kHalf) {
        half_products_.scores(half_keys_.data(), half_queries_.data() + first, tile);
        return;
      }
      if (path_ == Path::kSingle) {
        products_.scores(k_, queries_.data() + first, tile);
        return;
      }
    }
    panel_product<A>({k_, 0, head_dim_, 1}, {queries_.data() + first, 0, kColumns, 1}, 1, keys_,
                     kColumns, head_dim_, 1, tile, 1);
  }

 private:
  enum class Path { kSingle, kHalf, kPanel };

  int head_dim_;
  Path path_;
  const A* k_ = nullptr;
  int keys_ = 0;
  TileProducts<float> products_;
  TileProducts<BFloat16> half_products_;
  AlignedBuffer<A> queries_;              // [tile][d][64]
  AlignedBuffer<BFloat16> half_queries_;  // [tile][d / 2][64][2]
  AlignedBuffer<BFloat16> half_keys_;
};

template <class A>
class Worker {
 public:
  Worker(const SampledScoreProblem<A>& problem, int group_blocks)
      : p_(problem),
        group_blocks_(group_blocks),
        columns_((group_blocks * problem.samples + kColumns - 1) / kColumns * kColumns),
        video_blocks_(problem.kv_blocks - problem.prefix_blocks),
        logits_(problem, columns_),
        scores_(video_blocks_) {
    tile_ = tile_buffer_.reserve(kTileKeys * kColumns);
    maxima_ = maxima_buffer_.reserve(static_cast<size_t>(columns_) * video_blocks_);
    maximum_ = maximum_buffer_.reserve(columns_);
    sum_ = sum_buffer_.reserve(columns_);
  }

  // Scores of the call's query blocks [first, last), at most group_blocks.
  void run(int thread, int64_t batch_head, int first, int last, ScoreRowSink<A>& sink) {
    logits_.set_queries(p_.q + (batch_head * p_.query_blocks + first) * p_.samples * p_.head_dim,
                        (last - first) * p_.samples, columns_);
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
    logits_.set_keys(k, keys);
    const A factor = static_cast<A>(p_.scale * std::numbers::log2e);
    const bool sums = p_.score == SampledScore::kSoftmax;
    for (int column = 0; column < columns_; column += kColumns) {
      logits_.multiply(column, tile_);
      for (const Piece& piece : pieces_) {
        run_on_isa<TileKernel<A>>(static_cast<const A*>(tile_ + piece.first_key * kColumns),
                                  piece.keys, factor, maxima_ + piece.block * columns_ + column,
                                  maximum_ + column, sums ? sum_ + column : nullptr);
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
  AlignedBuffer<A> tile_buffer_, maxima_buffer_, maximum_buffer_, sum_buffer_;
  A *tile_, *maxima_, *maximum_, *sum_;
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

template <class A>
void sampled_scores(const GivenScores<A>& given, ScoreRowSink<A>& sink) {
  const int64_t video_blocks = given.kv_blocks - given.prefix_blocks;
  const int64_t rows = int64_t{given.batch} * given.heads * given.query_blocks;
  SPROCKET_CHECK_EQ(static_cast<int64_t>(given.scores.size()), rows * video_blocks);
  const int first =
      std::clamp(given.prefix_blocks - given.first_query_block, 0, given.query_blocks);
#pragma omp parallel for num_threads(given.threads) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const int query_block = static_cast<int>(row % given.query_blocks);
    if (query_block < first) continue;
    sink.take(omp_get_thread_num(), row / given.query_blocks, query_block,
              given.scores.subspan(row * video_blocks, video_blocks));
  }
}

template void sampled_scores(const SampledScoreProblem<float>&, ScoreRowSink<float>&);
template void sampled_scores(const SampledScoreProblem<double>&, ScoreRowSink<double>&);
template void sampled_scores(const GivenScores<float>&, ScoreRowSink<float>&);

}  // namespace sprocket::kernels

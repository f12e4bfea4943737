#include "kernels/query_pruning.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "kernels/block_pooling.h"
#include "kernels/row_kernels.h"
#include "kernels/score_key.h"

namespace sprocket::kernels {
namespace {

using Box = std::pair<TokenPosition, TokenPosition>;  // smallest and largest, both inclusive

// Differences below this keep a squared distance inside 32 bits.
constexpr int64_t kMaxExtent = 1 << 14;

// Tokens order[first .. first + count) of a block compete with each other.
struct Window {
  int32_t first = 0;
  int32_t count = 0;
  int32_t keep = 0;
  int32_t keep_if_redundant = 0;
};

// What is the same in all heads. Tokens are numbered inside the block.
struct BlockShape {
  std::vector<Window> windows;
  std::vector<int32_t> order;     // window by window, ascending inside
  std::vector<int32_t> centre;    // of the token's window, by token
  std::vector<int32_t> previous;  // the same place one frame earlier or -1, by token; empty if not
                                  // asked for
  int32_t keep = 0;
  int32_t keep_if_redundant = 0;

  int32_t tokens() const { return static_cast<int32_t>(order.size()); }
  bool prunes() const { return keep < tokens() || keep_if_redundant < tokens(); }
};

Box bounding_box(std::span<const TokenPosition> positions, std::span<const int32_t> tokens) {
  Box box{positions[tokens[0]], positions[tokens[0]]};
  for (const int32_t token : tokens) {
    for (int axis = 0; axis < 3; ++axis) {
      box.first[axis] = std::min(box.first[axis], positions[token][axis]);
      box.second[axis] = std::max(box.second[axis], positions[token][axis]);
    }
  }
  return box;
}

int32_t centre_of(std::span<const TokenPosition> positions, std::span<const int32_t> tokens,
                  PruningCentre rule) {
  switch (rule) {
    case PruningCentre::kPackedMiddle:
      return tokens[tokens.size() / 2];
    case PruningCentre::kGeometric: {
      const auto [low, high] = bounding_box(positions, tokens);
      int32_t nearest = 0;
      int64_t best = std::numeric_limits<int64_t>::max();
      for (const int32_t token : tokens) {
        int64_t distance = 0;  // of twice the coordinates, because the middle may be a half
        for (int axis = 0; axis < 3; ++axis) {
          const int64_t difference = 2 * int64_t{positions[token][axis]} - low[axis] - high[axis];
          distance += difference * difference;
        }
        if (distance < best) {
          best = distance;
          nearest = token;
        }
      }
      return nearest;
    }
  }
  throw InternalError("unknown centre rule");
}

int32_t count_kept(const Decimal& ratio, int64_t tokens) {
  return static_cast<int32_t>(std::max<int64_t>(1, ratio.floor_times(tokens)));
}

// Groups the tokens of shape.order by window.
void cut_windows(std::span<const TokenPosition> positions, const std::array<int32_t, 3>& window,
                 BlockShape& shape) {
  if (window == std::array<int32_t, 3>{}) {
    shape.windows.push_back({0, shape.tokens()});
    return;
  }
  const auto [low, high] = bounding_box(positions, shape.order);
  const auto window_of = [&, low = low](int32_t token) {
    TokenPosition id{};
    for (int axis = 0; axis < 3; ++axis) {
      if (window[axis] > 0) id[axis] = (positions[token][axis] - low[axis]) / window[axis];
    }
    return id;
  };
  std::stable_sort(shape.order.begin(), shape.order.end(),
                   [&](int32_t a, int32_t b) { return window_of(a) < window_of(b); });
  for (int32_t i = 0; i < shape.tokens(); ++i) {
    if (i == 0 || window_of(shape.order[i - 1]) != window_of(shape.order[i])) {
      shape.windows.push_back({i, 0});
    }
    ++shape.windows.back().count;
  }
}

std::vector<int32_t> one_frame_earlier(std::span<const TokenPosition> positions) {
  std::vector<std::pair<TokenPosition, int32_t>> sorted;
  for (size_t i = 0; i < positions.size(); ++i) sorted.emplace_back(positions[i], i);
  std::sort(sorted.begin(), sorted.end());
  std::vector<int32_t> previous;
  for (const auto& [t, h, w] : positions) {
    const TokenPosition wanted{t - 1, h, w};
    const auto found = std::lower_bound(sorted.begin(), sorted.end(), std::pair{wanted, 0});
    previous.push_back(found != sorted.end() && found->first == wanted ? found->second : -1);
  }
  return previous;
}

BlockShape describe_block(std::span<const TokenPosition> positions, const PruningSpec& spec,
                          bool exempt) {
  BlockShape shape;
  shape.order.resize(positions.size());
  std::iota(shape.order.begin(), shape.order.end(), 0);
  if (exempt || positions.empty()) {
    shape.keep = shape.keep_if_redundant = shape.tokens();
    return shape;
  }
  cut_windows(positions, spec.window, shape);
  shape.centre.resize(positions.size());
  for (Window& window : shape.windows) {
    const auto tokens = std::span(shape.order).subspan(window.first, window.count);
    const int32_t centre = centre_of(positions, tokens, spec.centre);
    for (const int32_t token : tokens) shape.centre[token] = centre;
    window.keep = window.keep_if_redundant = count_kept(spec.keep_ratio, window.count);
    if (spec.redundancy_threshold) {
      window.keep_if_redundant = count_kept(spec.redundant_keep_ratio, window.count);
    }
    shape.keep += window.keep;
    shape.keep_if_redundant += window.keep_if_redundant;
  }
  if (spec.redundancy_threshold) shape.previous = one_frame_earlier(positions);
  return shape;
}

// dots[i] = row i . row partner[i] (0 for no partner, -1), squares[i] = row i . row i
template <class T>
struct DotKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static void run(const T* rows, int64_t stride, const int32_t* partner,
                                  int64_t count, int head_dim, A* dots, A* squares) {
    for (int64_t i = 0; i < count; ++i) {
      const T* x = rows + i * stride;
      const T* y = partner[i] < 0 ? x : rows + partner[i] * stride;
      Lanes<A> dot{}, square{};
      for_each_vector<A>(head_dim, SPROCKET_STEP({
                           const Lanes<A> value = load(x + j, lanes);
                           dot += value * load(y + j, lanes);
                           square += value * value;
                         }));
      dots[i] = partner[i] < 0 ? A{0} : sum_of_lanes<A>(dot);
      squares[i] = sum_of_lanes<A>(square);
    }
  }
};

// nearest[i] = the candidate with the smallest (squared distance to point i, index). Coordinates
// come as [3][count], differences below kMaxExtent.
struct NearestKernel {
  SPROCKET_INLINE static void run(const int32_t* points, int64_t count, const int32_t* candidates,
                                  int64_t candidate_count, int32_t* nearest) {
    for (int64_t i = 0; i < count; ++i) {
      const int32_t t = points[i], h = points[count + i], w = points[2 * count + i];
      int64_t best = std::numeric_limits<int64_t>::max();
      for (int64_t j = 0; j < candidate_count; ++j) {
        const int32_t dt = candidates[j] - t, dh = candidates[candidate_count + j] - h,
                      dw = candidates[2 * candidate_count + j] - w;
        const int64_t key = (int64_t{dt * dt + dh * dh + dw * dw} << 32) | j;
        best = key < best ? key : best;
      }
      nearest[i] = static_cast<int32_t>(best & 0xffffffff);
    }
  }
};

// Chooses the kept tokens of one block and head after the other; keeps its buffers between them.
template <class T>
class BlockPruner {
 public:
  using A = Accumulator<T>;

  explicit BlockPruner(const PruningSpec& spec) : spec_(spec) {}

  // `rows` is the block's first row in the head. Writes the kept tokens in ascending order to
  // `kept` and, for every token, which of them it copies to `source`; returns how many are kept.
  int32_t prune(const T* rows, int64_t stride, int head_dim,
                std::span<const TokenPosition> positions, const BlockShape& shape, int32_t* kept,
                int32_t* source) {
    if (!shape.prunes()) {
      std::iota(kept, kept + shape.tokens(), 0);
      std::iota(source, source + shape.tokens(), 0);
      return shape.tokens();
    }
    choose(rows, stride, head_dim, shape);
    const int32_t count = list_kept(shape.tokens(), kept, source);
    switch (spec_.recovery) {
      case PruningRecovery::kNearestPosition:
        recover_by_position(positions, std::span(kept, count), source);
        break;
      case PruningRecovery::kNearestIndex:
        recover_by_index(std::span(kept, count), source);
        break;
    }
    return count;
  }

 private:
  // Fills similarity_ from partners that lie in the block.
  void compare(const T* rows, int64_t stride, int head_dim, const std::vector<int32_t>& partner) {
    const int64_t count = static_cast<int64_t>(partner.size());
    similarity_.resize(count);
    squares_.resize(count);
    run_on_isa<DotKernel<T>>(rows, stride, partner.data(), count, head_dim, similarity_.data(),
                             squares_.data());
    for (int64_t i = 0; i < count; ++i) {
      if (partner[i] < 0) continue;
      const A own = squares_[i], other = squares_[partner[i]];
      similarity_[i] =
          own == 0 || other == 0 ? A{0} : similarity_[i] / (std::sqrt(own) * std::sqrt(other));
    }
  }

  bool is_redundant(const T* rows, int64_t stride, int head_dim, const BlockShape& shape) {
    if (shape.previous.empty()) return false;
    compare(rows, stride, head_dim, shape.previous);
    A sum = 0;
    int64_t pairs = 0;
    for (size_t i = 0; i < shape.previous.size(); ++i) {
      if (shape.previous[i] < 0) continue;
      sum += similarity_[i];
      ++pairs;
    }
    return pairs > 0 &&
           static_cast<double>(sum / static_cast<A>(pairs)) > *spec_.redundancy_threshold;
  }

  // Fills keeps_, one flag for each token.
  void choose(const T* rows, int64_t stride, int head_dim, const BlockShape& shape) {
    const bool redundant = is_redundant(rows, stride, head_dim, shape);
    compare(rows, stride, head_dim, shape.centre);
    keeps_.assign(shape.tokens(), 0);
    for (const Window& window : shape.windows) {
      const auto tokens = std::span(shape.order).subspan(window.first, window.count);
      const int32_t keep = redundant ? window.keep_if_redundant : window.keep;
      keys_.clear();
      for (const int32_t token : tokens) {
        keys_.push_back(
            ascending_key<A>(ordered_bits(similarity_[token]), static_cast<uint32_t>(token)));
      }
      if (keep < window.count) std::nth_element(keys_.begin(), keys_.begin() + keep, keys_.end());
      for (int32_t i = 0; i < keep; ++i) keeps_[id_of_ascending<A>(keys_[i])] = 1;
    }
  }

  int32_t list_kept(int32_t tokens, int32_t* kept, int32_t* source) {
    int32_t count = 0;
    pruned_.clear();
    for (int32_t token = 0; token < tokens; ++token) {
      if (keeps_[token]) {
        source[token] = count;
        kept[count++] = token;
      } else {
        pruned_.push_back(token);
      }
    }
    return count;
  }

  void recover_by_position(std::span<const TokenPosition> positions, std::span<const int32_t> kept,
                           int32_t* source) {
    const auto transpose = [&](std::span<const int32_t> tokens, std::vector<int32_t>& coordinates) {
      coordinates.clear();
      for (int axis = 0; axis < 3; ++axis) {
        for (const int32_t token : tokens) coordinates.push_back(positions[token][axis]);
      }
    };
    transpose(kept, candidates_);
    transpose(pruned_, points_);
    nearest_.resize(pruned_.size());
    run_on_isa<NearestKernel>(static_cast<const int32_t*>(points_.data()),
                              static_cast<int64_t>(pruned_.size()),
                              static_cast<const int32_t*>(candidates_.data()),
                              static_cast<int64_t>(kept.size()), nearest_.data());
    for (size_t i = 0; i < pruned_.size(); ++i) source[pruned_[i]] = nearest_[i];
  }

  void recover_by_index(std::span<const int32_t> kept, int32_t* source) {
    size_t nearest = 0;
    for (const int32_t token : pruned_) {
      while (nearest + 1 < kept.size() &&
             std::abs(kept[nearest + 1] - token) < std::abs(kept[nearest] - token)) {
        ++nearest;
      }
      source[token] = static_cast<int32_t>(nearest);
    }
  }

  const PruningSpec& spec_;
  std::vector<A> similarity_, squares_;
  std::vector<ScoreKey<A>> keys_;
  std::vector<uint8_t> keeps_;
  std::vector<int32_t> pruned_, points_, candidates_, nearest_;
};

void check_spec(const PruningSpec& spec) {
  const Decimal one = Decimal::ratio(1, 0);
  SPROCKET_CHECK(!(spec.keep_ratio < Decimal()) && !(one < spec.keep_ratio), "keep ratio {}",
                 spec.keep_ratio.to_string());
  for (const int32_t extent : spec.window) {
    SPROCKET_CHECK(extent >= 0, "a window of {} x {} x {}", spec.window[0], spec.window[1],
                   spec.window[2]);
  }
  if (spec.redundancy_threshold) {
    SPROCKET_CHECK(
        !(spec.redundant_keep_ratio < Decimal()) && !(spec.keep_ratio < spec.redundant_keep_ratio),
        "redundant keep ratio {} of keep ratio {}", spec.redundant_keep_ratio.to_string(),
        spec.keep_ratio.to_string());
  }
}

void check_extent(std::span<const TokenPosition> positions, const BlockShape& shape) {
  if (!shape.prunes()) return;
  const auto [low, high] = bounding_box(positions, shape.order);
  for (int axis = 0; axis < 3; ++axis) {
    SPROCKET_CHECK(int64_t{high[axis]} - low[axis] < kMaxExtent,
                   "a block from position {} to {} on axis {}; legal: less than {} apart",
                   low[axis], high[axis], axis, kMaxExtent);
  }
}

// Of every block.
std::vector<BlockShape> describe_blocks(std::span<const int64_t> block_offsets,
                                        std::span<const TokenPosition> positions,
                                        const PruningSpec& spec, int first_exempt_blocks) {
  SPROCKET_CHECK(!block_offsets.empty() && block_offsets.front() == 0 &&
                     block_offsets.back() == static_cast<int64_t>(positions.size()) &&
                     std::is_sorted(block_offsets.begin(), block_offsets.end()),
                 "blocks do not cut {} tokens", positions.size());
  check_spec(spec);
  std::vector<BlockShape> shapes;
  for (size_t block = 0; block + 1 < block_offsets.size(); ++block) {
    const auto of_block =
        positions.subspan(block_offsets[block], block_offsets[block + 1] - block_offsets[block]);
    shapes.push_back(
        describe_block(of_block, spec, static_cast<int64_t>(block) < first_exempt_blocks));
    check_extent(of_block, shapes.back());
  }
  return shapes;
}

// body(batch, head, block) for all of them, in parallel over blocks: the heads of a block share its
// rows' memory pages.
template <class Body>
void for_each_block(const QueryPruning& pruning, int threads, Body body) {
  const int64_t blocks = pruning.query_blocks();
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t b = 0; b < pruning.batch; ++b) {
      for (int64_t h = 0; h < pruning.heads; ++h) body(b, h, block);
    }
  }
}

}  // namespace

bool QueryPruning::keeps_everything() const {
  return std::accumulate(rows.begin(), rows.end(), int64_t{0}) ==
         static_cast<int64_t>(source.size());
}

PruningLayout make_pruning_layout(std::span<const int64_t> block_offsets,
                                  std::span<const TokenPosition> positions, const PruningSpec& spec,
                                  int first_exempt_blocks) {
  PruningLayout layout;
  layout.token_offsets.assign(block_offsets.begin(), block_offsets.end());
  layout.offsets = {0};
  for (const BlockShape& shape :
       describe_blocks(block_offsets, positions, spec, first_exempt_blocks)) {
    layout.offsets.push_back(layout.offsets.back() + shape.keep);
    const size_t first_token = layout.centre.size();
    layout.centre.resize(first_token + shape.tokens(), -1);
    layout.window.resize(first_token + shape.tokens(), -1);
    if (spec.redundancy_threshold) layout.previous.resize(first_token + shape.tokens(), -1);
    if (!shape.prunes()) continue;
    std::copy(shape.centre.begin(), shape.centre.end(), layout.centre.begin() + first_token);
    std::copy(shape.previous.begin(), shape.previous.end(), layout.previous.begin() + first_token);
    for (const Window& window : shape.windows) {
      for (int32_t i = window.first; i < window.first + window.count; ++i) {
        layout.window[first_token + shape.order[i]] = static_cast<int32_t>(layout.keep.size());
      }
      layout.keep.push_back(window.keep);
      layout.keep_if_redundant.push_back(window.keep_if_redundant);
    }
  }
  return layout;
}

template <class T>
QueryPruning prune_queries(HeadView<const T> q, std::span<const int64_t> block_offsets,
                           std::span<const TokenPosition> positions, int batch, int heads,
                           int head_dim, const PruningSpec& spec, int first_exempt_blocks,
                           int threads) {
  QueryPruning pruning;
  pruning.batch = batch;
  pruning.heads = heads;
  pruning.token_offsets.assign(block_offsets.begin(), block_offsets.end());
  pruning.offsets = {0};
  const std::vector<BlockShape> shapes =
      describe_blocks(block_offsets, positions, spec, first_exempt_blocks);
  const int64_t blocks = static_cast<int64_t>(block_offsets.size()) - 1;
  const auto positions_of = [&](int64_t block) {
    return positions.subspan(block_offsets[block], block_offsets[block + 1] - block_offsets[block]);
  };
  for (const BlockShape& shape : shapes) {
    pruning.offsets.push_back(pruning.offsets.back() + shape.keep);
  }
  const int64_t batch_heads = static_cast<int64_t>(batch) * heads;
  const int64_t tokens = pruning.tokens(), kept_rows = pruning.kept_rows();
  pruning.rows.resize(batch_heads * blocks);
  pruning.kept.assign(batch_heads * kept_rows, -1);
  pruning.source.resize(batch_heads * tokens);
#pragma omp parallel num_threads(threads)
  {
    BlockPruner<T> pruner(spec);
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t first_token = block_offsets[block], first_row = pruning.offsets[block];
      for (int64_t bh = 0; bh < batch_heads; ++bh) {
        int32_t* kept = pruning.kept.data() + bh * kept_rows + first_row;
        int32_t* source = pruning.source.data() + bh * tokens + first_token;
        const int32_t count =
            pruner.prune(q.row(bh / heads, first_token, bh % heads), q.row_stride, head_dim,
                         positions_of(block), shapes[block], kept, source);
        pruning.rows[bh * blocks + block] = count;
        for (int32_t i = 0; i < count; ++i) kept[i] += static_cast<int32_t>(first_token);
        for (int32_t i = 0; i < shapes[block].tokens(); ++i) {
          source[i] += static_cast<int32_t>(first_row);
        }
      }
    }
  }
  return pruning;
}

template <class T>
void gather_queries(HeadView<const T> q, const QueryPruning& pruning, int head_dim,
                    HeadView<T> kept, int threads) {
  for_each_block(pruning, threads, [&](int64_t b, int64_t h, int64_t block) {
    const int32_t* tokens = pruning.kept.data() + (b * pruning.heads + h) * pruning.kept_rows();
    for (int64_t row = pruning.offsets[block]; row < pruning.offsets[block + 1]; ++row) {
      if (tokens[row] >= 0) {
        std::copy_n(q.row(b, tokens[row], h), head_dim, kept.row(b, row, h));
      } else {
        std::fill_n(kept.row(b, row, h), head_dim, T{});
      }
    }
  });
}

template <class T>
void kept_means(HeadView<const T> kept, const QueryPruning& pruning, int head_dim,
                Accumulator<T>* means, int threads) {
  for_each_block(pruning, threads, [&](int64_t b, int64_t h, int64_t block) {
    const int64_t index = (b * pruning.heads + h) * pruning.query_blocks() + block;
    const int64_t bounds[2] = {0, pruning.rows[index]};
    pool_blocks<T>({kept.row(b, pruning.offsets[block], h), 0, kept.row_stride, 0}, bounds, 1, 1,
                   head_dim, means + index * head_dim, 1);
  });
}

template <class T>
void recover_rows(HeadView<const T> kept, const QueryPruning& pruning, int head_dim,
                  HeadView<T> out, int threads) {
  for_each_block(pruning, threads, [&](int64_t b, int64_t h, int64_t block) {
    const int32_t* source = pruning.source.data() + (b * pruning.heads + h) * pruning.tokens();
    for (int64_t token = pruning.token_offsets[block]; token < pruning.token_offsets[block + 1];
         ++token) {
      std::copy_n(kept.row(b, source[token], h), head_dim, out.row(b, token, h));
    }
  });
}

template <class A>
void recover_lse(const A* kept, const QueryPruning& pruning, A* lse, int threads) {
  for_each_block(pruning, threads, [&](int64_t b, int64_t h, int64_t block) {
    const int64_t batch_head = b * pruning.heads + h;
    const int64_t first = batch_head * pruning.tokens();
    for (int64_t token = pruning.token_offsets[block]; token < pruning.token_offsets[block + 1];
         ++token) {
      lse[first + token] = kept[batch_head * pruning.kept_rows() + pruning.source[first + token]];
    }
  });
}

template <class T>
void recover_rows_backward(HeadView<const T> dout, const QueryPruning& pruning, int head_dim,
                           HeadView<T> dkept, int threads) {
  using A = Accumulator<T>;
  const int64_t blocks = pruning.query_blocks();
#pragma omp parallel num_threads(threads)
  {
    std::vector<A> sums;
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t first_row = pruning.offsets[block];
      const int64_t rows = pruning.offsets[block + 1] - first_row;
      for (int64_t bh = 0; bh < static_cast<int64_t>(pruning.batch) * pruning.heads; ++bh) {
        const int64_t b = bh / pruning.heads, h = bh % pruning.heads;
        const int32_t* source = pruning.source.data() + bh * pruning.tokens();
        sums.assign(rows * head_dim, A{0});
        for (int64_t token = pruning.token_offsets[block]; token < pruning.token_offsets[block + 1];
             ++token) {
          const T* from = dout.row(b, token, h);
          A* sum = sums.data() + (source[token] - first_row) * head_dim;
          for (int d = 0; d < head_dim; ++d) sum[d] += static_cast<A>(from[d]);
        }
        for (int64_t row = 0; row < rows; ++row) {
          T* to = dkept.row(b, first_row + row, h);
          for (int d = 0; d < head_dim; ++d) to[d] = T(sums[row * head_dim + d]);
        }
      }
    }
  }
}

template <class A>
void scatter_query_gradients(HeadView<const A> dkept, const QueryPruning& pruning, int head_dim,
                             HeadView<A> dq, int threads) {
  for_each_block(pruning, threads, [&](int64_t b, int64_t h, int64_t block) {
    const int64_t batch_head = b * pruning.heads + h, first = pruning.offsets[block];
    const int32_t* tokens = pruning.kept.data() + batch_head * pruning.kept_rows();
    const int64_t used = pruning.rows[batch_head * pruning.query_blocks() + block];
    for (int64_t row = first; row < first + used; ++row) {
      const A* from = dkept.row(b, row, h);
      A* to = dq.row(b, tokens[row], h);
      for (int d = 0; d < head_dim; ++d) to[d] += from[d];
    }
  });
}

#define SPROCKET_INSTANTIATE_PRUNING(T)                                                            \
  template QueryPruning prune_queries<T>(HeadView<const T>, std::span<const int64_t>,              \
                                         std::span<const TokenPosition>, int, int, int,            \
                                         const PruningSpec&, int, int);                            \
  template void gather_queries<T>(HeadView<const T>, const QueryPruning&, int, HeadView<T>, int);  \
  template void kept_means<T>(HeadView<const T>, const QueryPruning&, int, Accumulator<T>*, int);  \
  template void recover_rows<T>(HeadView<const T>, const QueryPruning&, int, HeadView<T>, int);    \
  template void recover_rows_backward<T>(HeadView<const T>, const QueryPruning&, int, HeadView<T>, \
                                         int);
SPROCKET_INSTANTIATE_PRUNING(double)
SPROCKET_INSTANTIATE_PRUNING(float)
SPROCKET_INSTANTIATE_PRUNING(BFloat16)

#define SPROCKET_INSTANTIATE_RECOVERY(A)                                                \
  template void recover_lse<A>(const A*, const QueryPruning&, A*, int);                 \
  template void scatter_query_gradients<A>(HeadView<const A>, const QueryPruning&, int, \
                                           HeadView<A>, int);
SPROCKET_INSTANTIATE_RECOVERY(double)
SPROCKET_INSTANTIATE_RECOVERY(float)

}  // namespace sprocket::kernels

// Query-stationary forward on tiles: the outputs and online softmax of a group of query tiles stay
// in cache while the KV tiles of their lists go by.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/packed_head.h"
#include "kernels/packed_query.h"
#include "kernels/segment_attention_heads.h"

namespace sprocket::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <class Packed>
struct ForwardTile {
  ForwardTile() = default;
  ForwardTile(int dim, WorkspaceArena& arena)
      : query(dim, false, arena),
        accumulator(arena.take<float>(int64_t{kMaxColumns} * dim)),
        maximum(arena.take<float>(kMaxColumns)),
        sum(arena.take<float>(kMaxColumns)) {}

  static constexpr int64_t bytes(int dim) {
    return int64_t{kMaxColumns} * dim * static_cast<int64_t>(sizeof(Packed) + sizeof(float));
  }

  PackedQuery<Packed> query;
  float* accumulator = nullptr;  // [dim][columns]
  float* maximum = nullptr;
  float* sum = nullptr;
};

template <class Packed>
struct ForwardScratch {
  ForwardScratch(int dim, int tiles, WorkspaceArena& arena)
      : products(dim),
        scores(arena.take<float>(kTileRows * kMaxColumns)),
        pairs(arena.take<BFloat16>(kTileRows * kMaxColumns)),
        rows(arena.take<float>(int64_t{kMaxColumns} * dim)),
        packed_rows(arena.take<Packed>(int64_t{kMaxColumns} * dim)) {
    for (int i = 0; i < tiles; ++i) group[i] = ForwardTile<Packed>(dim, arena);
  }

  TileProducts<Packed> products;
  float* scores;
  BFloat16* pairs;
  float* rows;          // [columns][dim]
  Packed* packed_rows;  // as many
  ForwardTile<Packed> group[kMaxGroupTiles];
};

template <class T, class Packed>
class TiledForward final : public HeadWork {
 public:
  using Scratch = ForwardScratch<Packed>;

  static int group_tiles(int dim) { return group_tiles_for(ForwardTile<Packed>::bytes(dim)); }

  TiledForward(const ForwardArguments<T>& arguments, const PlanSizes& sizes, Scratch* scratch,
               WorkspaceArena& arena)
      : HeadWork(HeadPlan(plan_source(arguments.problem), sizes, arena),
                 group_tiles(round_up(arguments.problem.head_dim, 16))),
        arguments_(arguments),
        dim_(round_up(arguments.problem.head_dim, 16)),
        ops_(tile_ops()),
        packed_(dim_, sizes, arena),
        scratch_(scratch) {}

  void begin(int64_t batch_head) override { plan_.build(batch_head); }

  void load_keys(int first_block, int last_block, int worker) override {
    if (worker == 0) problem().progress();
    for (int id = first_block; id < last_block; ++id) {
      packed_.load(problem(), plan_, id);
      if constexpr (kPairs) {
        for (const KeyTile& keys : plan_.key_tiles(id)) {
          transpose_pairs(packed_.values(keys), round_up(keys.rows, 2), dim_,
                          scratch_[worker].packed_rows, packed_.values(keys));
        }
      }
    }
  }

  void run(const Cell& cell, int worker) override {
    Scratch& scratch = scratch_[worker];
    const auto tiles = tiles_of(cell);
    bool attends[kMaxGroupTiles];
    for (size_t i = 0; i < tiles.size(); ++i) {
      // A tile without keys continues a former pass by leaving it alone.
      attends[i] = tiles[i].rows > 0 && !(arguments_.accumulate && tiles[i].weight == 0);
      if (attends[i]) start(tiles[i], scratch, scratch.group[i]);
    }
    for (ListWalk walk(plan_, tiles, cell.first_key, cell.last_key); !walk.done(); walk.advance()) {
      if (worker == 0) problem().progress();
      const auto keys = plan_.key_tiles(walk.block());
      const auto following = plan_.key_tiles(walk.following());
      for (size_t j = 0; j < keys.size(); ++j) {
        const KeyTile& next = j + 1 < keys.size() ? keys[j + 1]
                              : following.empty() ? keys[j]
                                                  : following[0];
        for (size_t i = 0; i < tiles.size(); ++i) {
          if (walk.lists(i)) {
            attend(tiles[i], keys[j], next, plan_.block(walk.block()).bias, scratch,
                   scratch.group[i]);
          }
        }
      }
    }
    for (size_t i = 0; i < tiles.size(); ++i) {
      if (attends[i]) finish(tiles[i], scratch, scratch.group[i]);
      if (!arguments_.accumulate) clear_skipped(tiles[i]);
    }
  }

 private:
  static constexpr bool kPairs = std::is_same_v<Packed, BFloat16>;

  const SegmentAttentionProblem<T>& problem() const { return arguments_.problem; }
  float* lse_of(const QueryTile& tile) const {
    return arguments_.lse + plan_.batch_head() * problem().query_offsets.back() + tile.first_row;
  }
  float* out_of(const QueryTile& tile) const {
    return arguments_.out.row(plan_.batch(), tile.first_row, plan_.head());
  }

  void attend(const QueryTile& tile, const KeyTile& keys, const KeyTile& next, double bias,
              Scratch& scratch, ForwardTile<Packed>& to) const {
    // The next tile's keys have the size of the right operand, its values that of the result, or
    // partly so.
    const char* const next_values = reinterpret_cast<const char*>(packed_.values(next));
    const int64_t value_bytes = int64_t{next.rows} * dim_ * static_cast<int>(sizeof(Packed));
    const int64_t result_bytes = int64_t{keys.rows} * tile.columns * 4;
    Prefetch with_scores{nullptr, packed_.keys(next)}, with_outputs{nullptr, next_values};
    if (result_bytes <= value_bytes) {
      with_scores.like_result = next_values;
      with_outputs.like_right = result_bytes < value_bytes ? next_values + result_bytes : nullptr;
    }
    scratch.products.select(keys.rows, tile.columns);
    scratch.products.scores(packed_.keys(keys), to.query.across(), scratch.scores, with_scores);
    ops_.softmax({scratch.scores, keys.rows, tile.columns,
                  static_cast<float>(problem().scale * kLog2E), static_cast<float>(bias * kLog2E),
                  to.maximum, to.sum, to.accumulator, dim_, kPairs ? scratch.pairs : nullptr});
    const Packed* weights;
    if constexpr (kPairs) {
      weights = scratch.pairs;
    } else {
      weights = scratch.scores;
    }
    scratch.products.outputs(packed_.values(keys), weights, to.accumulator, with_outputs);
  }

  // From nothing, or from a former pass: its normalised output, with the weight that its LSE gives
  // it.
  void start(const QueryTile& tile, Scratch& scratch, ForwardTile<Packed>& to) const {
    to.query.pack(problem().q.row(plan_.batch(), tile.first_row, plan_.head()),
                  problem().q.row_stride, problem().head_dim, tile, scratch.packed_rows);
    std::fill_n(to.maximum, tile.columns, kFarBelow);
    std::fill_n(to.sum, tile.columns, 0.0f);
    const int64_t size = int64_t{tile.columns} * dim_;
    std::fill_n(arguments_.accumulate ? scratch.rows : to.accumulator, size, 0.0f);
    if (!arguments_.accumulate) return;
    const float* lse = lse_of(tile);
    for (int i = 0; i < tile.rows; ++i) {
      if (lse[i] == -kInfinity) continue;
      const double lse2 = lse[i] * kLog2E;
      to.maximum[i] = static_cast<float>(lse2);
      to.sum[i] = static_cast<float>(std::exp2(lse2 - to.maximum[i]));
      const float* from = out_of(tile) + i * arguments_.out.row_stride;
      float* row = scratch.rows + int64_t{i} * dim_;
      for (int d = 0; d < problem().head_dim; ++d) row[d] = from[d] * to.sum[i];
    }
    transpose_words(scratch.rows, tile.columns, dim_, dim_, to.accumulator, tile.columns);
  }

  void finish(const QueryTile& tile, Scratch& scratch, const ForwardTile<Packed>& from) const {
    transpose_words(from.accumulator, dim_, tile.columns, tile.columns, scratch.rows, dim_);
    float* lse = lse_of(tile);
    for (int i = 0; i < tile.rows; ++i) {
      const float sum = from.sum[i];
      const float inverse = sum == 0 ? 0 : 1 / sum;
      const float* row = scratch.rows + int64_t{i} * dim_;
      float* to = out_of(tile) + i * arguments_.out.row_stride;
      for (int d = 0; d < problem().head_dim; ++d) to[d] = row[d] * inverse;
      lse[i] = sum == 0 ? -kInfinity
                        : static_cast<float>((from.maximum[i] + std::log2(double{sum})) / kLog2E);
    }
  }

  void clear_skipped(const QueryTile& tile) const {
    for (int i = tile.rows; i < tile.rows + tile.skipped; ++i) {
      std::fill_n(out_of(tile) + i * arguments_.out.row_stride, problem().head_dim, 0.0f);
      lse_of(tile)[i] = -kInfinity;
    }
  }

  ForwardArguments<T> arguments_;
  int dim_;
  TileOps ops_;
  PackedKeys<Packed> packed_;  // V: rows for fp32, [dim][rows] for bf16
  Scratch* scratch_;           // [workers]
};

}  // namespace

void make_heads(const ForwardArguments<float>& arguments, const PlanSizes& sizes, int workers,
                WorkspaceArena& arena, std::span<HeadWork*> heads) {
  make_tiled_heads<TiledForward<float, float>>(arguments, sizes, workers, arena, heads);
}

void make_heads(const ForwardArguments<BFloat16>& arguments, const PlanSizes& sizes, int workers,
                WorkspaceArena& arena, std::span<HeadWork*> heads) {
  if (has_bf16_products()) {
    make_tiled_heads<TiledForward<BFloat16, BFloat16>>(arguments, sizes, workers, arena, heads);
  } else {
    make_tiled_heads<TiledForward<BFloat16, float>>(arguments, sizes, workers, arena, heads);
  }
}

}  // namespace sprocket::kernels

// Backward on tiles with five products per pair: groups of query tiles go by in ascending order,
// each with its lists; dK, dV and dQ of the head are kept in fp32 and added to the caller's at the
// end.
#include <algorithm>
#include <limits>

#include "kernels/packed_head.h"
#include "kernels/packed_query.h"
#include "kernels/segment_attention_heads.h"

namespace sprocket::kernels {
namespace {

template <class Packed>
struct BackwardTile {
  BackwardTile() = default;
  BackwardTile(int dim, WorkspaceArena& arena)
      : query(dim, true, arena),
        dout(dim, true, arena),
        lse(arena.take<float>(kMaxColumns)),
        lse_rest(arena.take<float>(kMaxColumns)),
        delta(arena.take<float>(kMaxColumns)) {}

  // dQ included.
  static constexpr int64_t bytes(int dim) {
    return int64_t{kMaxColumns} * dim * static_cast<int64_t>(4 * sizeof(Packed) + sizeof(float));
  }

  PackedQuery<Packed> query, dout;
  float* lse = nullptr;
  float* lse_rest = nullptr;
  float* delta = nullptr;
};

template <class Packed>
struct BackwardScratch {
  BackwardScratch(int dim, int tiles, WorkspaceArena& arena)
      : products(dim),
        scores(arena.take<float>(kTileRows * kMaxColumns)),
        dscores(arena.take<float>(kTileRows * kMaxColumns)),
        p(arena.take<BFloat16>(kTileRows * kMaxColumns)),
        ds(arena.take<BFloat16>(kTileRows * kMaxColumns)),
        ds_pairs(arena.take<BFloat16>(kTileRows * kMaxColumns)),
        rows(arena.take<float>(int64_t{kMaxColumns} * dim)),
        packed_rows(arena.take<Packed>(int64_t{kMaxColumns} * dim)),
        k_transposed(arena.take<Packed>(int64_t{kTileRows} * dim)) {
    for (int i = 0; i < tiles; ++i) group[i] = BackwardTile<Packed>(dim, arena);
  }

  TileProducts<Packed> products;
  float* scores;
  float* dscores;
  BFloat16* p;
  BFloat16* ds;
  BFloat16* ds_pairs;
  float* rows;           // dQ as [columns][dim]
  Packed* packed_rows;   // as many
  Packed* k_transposed;  // bf16: the key tile at hand as [dim][rows]
  BackwardTile<Packed> group[kMaxGroupTiles];
  // Whose rows are in `group`.
  int64_t batch_head = -1;
  int first_tile = -1;
};

template <class T, class Packed>
class TiledBackward final : public HeadWork {
 public:
  using Scratch = BackwardScratch<Packed>;

  static int group_tiles(int dim) { return group_tiles_for(BackwardTile<Packed>::bytes(dim)); }

  TiledBackward(const BackwardArguments<T>& arguments, const PlanSizes& sizes, Scratch* scratch,
                WorkspaceArena& arena)
      : HeadWork(HeadPlan(plan_source(arguments.problem), sizes, arena),
                 group_tiles(round_up(arguments.problem.head_dim, 16)),
                 sizes.packed_rows * round_up(arguments.problem.head_dim, 16) *
                     static_cast<int64_t>(2 * sizeof(Packed) + 2 * sizeof(float))),
        arguments_(arguments),
        dim_(round_up(arguments.problem.head_dim, 16)),
        ops_(tile_ops()),
        packed_(dim_, sizes, arena),
        dk_(arena.take<float>(sizes.packed_rows * dim_)),
        dv_(arena.take<float>(sizes.packed_rows * dim_)),
        dq_(arena.take<float>(sizes.packed_queries * dim_)),
        scratch_(scratch) {}

  void begin(int64_t batch_head) override { plan_.build(batch_head); }

  void load_keys(int first_block, int last_block, int worker) override {
    if (worker == 0) problem().progress();
    for (int id = first_block; id < last_block; ++id) {
      packed_.load(problem(), plan_, id);
      for (const KeyTile& keys : plan_.key_tiles(id)) {
        const int64_t at = keys.offset * dim_;
        std::fill_n(dk_ + at, int64_t{keys.rows} * dim_, 0.0f);
        std::fill_n(dv_ + at, int64_t{keys.rows} * dim_, 0.0f);
      }
    }
  }

  void run(const Cell& cell, int worker) override {
    Scratch& scratch = scratch_[worker];
    const auto tiles = tiles_of(cell);
    if (cell.first_key == 0) {
      for (const QueryTile& tile : tiles) {
        std::fill_n(dq_of(tile), int64_t{tile.columns} * dim_, 0.0f);
      }
    }
    ListWalk walk(plan_, tiles, cell.first_key, cell.last_key);
    if (!walk.done()) load_group(cell, scratch);
    for (; !walk.done(); walk.advance()) {
      if (worker == 0) problem().progress();
      const auto keys = plan_.key_tiles(walk.block());
      const auto following = plan_.key_tiles(walk.following());
      for (size_t j = 0; j < keys.size(); ++j) {
        const KeyTile& next = j + 1 < keys.size() ? keys[j + 1]
                              : following.empty() ? keys[j]
                                                  : following[0];
        if constexpr (kPairs) {
          transpose_pairs(packed_.keys(keys[j]), round_up(keys[j].rows, 2), dim_,
                          scratch.packed_rows, scratch.k_transposed);
        }
        for (size_t i = 0; i < tiles.size(); ++i) {
          if (walk.lists(i)) {
            differentiate(tiles[i], keys[j], next, plan_.block(walk.block()).bias, scratch,
                          scratch.group[i]);
          }
        }
      }
    }
    if (cell.last_key == plan_.kv_blocks()) {
      for (const QueryTile& tile : tiles) store_query_gradients(tile, scratch);
    }
    if (cell.last_tile == static_cast<int>(plan_.query_tiles().size())) {
      for (int id = cell.first_key; id < cell.last_key; ++id) store_key_gradients(id);
    }
  }

 private:
  static constexpr bool kPairs = std::is_same_v<Packed, BFloat16>;

  const SegmentAttentionProblem<T>& problem() const { return arguments_.problem; }
  float* dq_of(const QueryTile& tile) const { return dq_ + tile.packed_row * dim_; }

  void load_group(const Cell& cell, Scratch& scratch) const {
    if (scratch.batch_head == plan_.batch_head() && scratch.first_tile == cell.first_tile) return;
    scratch.batch_head = plan_.batch_head();
    scratch.first_tile = cell.first_tile;
    const auto tiles = tiles_of(cell);
    for (size_t i = 0; i < tiles.size(); ++i) {
      const QueryTile& tile = tiles[i];
      if (tile.rows == 0) continue;
      BackwardTile<Packed>& to = scratch.group[i];
      to.query.pack(problem().q.row(plan_.batch(), tile.first_row, plan_.head()),
                    problem().q.row_stride, problem().head_dim, tile, scratch.packed_rows);
      to.dout.pack(arguments_.dout.row(plan_.batch(), tile.first_row, plan_.head()),
                   arguments_.dout.row_stride, problem().head_dim, tile, scratch.packed_rows);
      load_statistics(tile, to);
    }
  }

  void load_statistics(const QueryTile& tile, BackwardTile<Packed>& to) const {
    const int64_t first = plan_.batch_head() * problem().query_offsets.back() + tile.first_row;
    for (int i = 0; i < tile.columns; ++i) {
      const bool empty =
          i >= tile.rows || arguments_.lse[first + i] == -std::numeric_limits<float>::infinity();
      const double lse = empty ? -kFarBelow : arguments_.lse[first + i] * kLog2E;
      to.lse[i] = static_cast<float>(lse);
      to.lse_rest[i] = static_cast<float>(lse - to.lse[i]);
      to.delta[i] = empty ? 0 : arguments_.delta[first + i];
    }
  }

  void differentiate(const QueryTile& tile, const KeyTile& keys, const KeyTile& next, double bias,
                     Scratch& scratch, const BackwardTile<Packed>& from) const {
    const int64_t at = keys.offset * dim_, next_at = next.offset * dim_;
    float* const dq = dq_of(tile);
    TileProducts<Packed>& products = scratch.products;
    products.select(keys.rows, tile.columns);
    products.scores(packed_.keys(keys), from.query.across(), scratch.scores,
                    {nullptr, packed_.keys(next)});
    products.scores(packed_.values(keys), from.dout.across(), scratch.dscores,
                    {nullptr, packed_.values(next)});
    ops_.gradient({scratch.scores, scratch.dscores, keys.rows, tile.columns,
                   static_cast<float>(problem().scale * kLog2E), static_cast<float>(bias * kLog2E),
                   static_cast<float>(problem().scale), from.lse, from.lse_rest, from.delta,
                   kPairs ? scratch.p : nullptr, scratch.ds, scratch.ds_pairs});
    const Prefetch next_dk{dk_ + next_at, nullptr}, next_dv{dv_ + next_at, nullptr};
    if constexpr (kPairs) {
      products.key_gradients(scratch.p, from.dout.along(), dv_ + at, next_dv);
      products.key_gradients(scratch.ds, from.query.along(), dk_ + at, next_dk);
      products.outputs(scratch.k_transposed, scratch.ds_pairs, dq);
    } else {
      products.key_gradients(scratch.scores, from.dout.along(), dv_ + at, next_dv);
      products.key_gradients(scratch.dscores, from.query.along(), dk_ + at, next_dk);
      products.outputs(packed_.keys(keys), scratch.dscores, dq);
    }
  }

  void store_query_gradients(const QueryTile& tile, Scratch& scratch) const {
    if (tile.weight == 0) return;
    transpose_words(dq_of(tile), dim_, tile.columns, tile.columns, scratch.rows, dim_);
    add_rows(scratch.rows, dim_, tile.rows, problem().head_dim,
             arguments_.dq.row(plan_.batch(), tile.first_row, plan_.head()),
             arguments_.dq.row_stride);
  }

  void store_key_gradients(int id) const {
    const auto key_tiles = plan_.key_tiles(id);
    if (key_tiles.empty()) return;
    const KvGradBuffer<T>& target = arguments_.dkv[plan_.block(id).buffer];
    add_tiles(key_tiles, dk_, id, target.dk);
    add_tiles(key_tiles, dv_, id, target.dv);
  }

  void add_tiles(std::span<const KeyTile> key_tiles, const float* from, int id,
                 const HeadView<float>& to) const {
    int64_t row = plan_.block(id).first_row;
    for (const KeyTile& keys : key_tiles) {
      add_rows(from + keys.offset * dim_, dim_, keys.rows, problem().head_dim,
               to.row(plan_.batch(), row, plan_.head()), to.row_stride);
      row += keys.rows;
    }
  }

  BackwardArguments<T> arguments_;
  int dim_;
  TileOps ops_;
  PackedKeys<Packed> packed_;
  float* dk_;  // [packed rows][dim]
  float* dv_;
  float* dq_;         // by query tile, [dim][columns]
  Scratch* scratch_;  // [workers]
};

}  // namespace

void make_heads(const BackwardArguments<float>& arguments, const PlanSizes& sizes, int workers,
                WorkspaceArena& arena, std::span<HeadWork*> heads) {
  make_tiled_heads<TiledBackward<float, float>>(arguments, sizes, workers, arena, heads);
}

void make_heads(const BackwardArguments<BFloat16>& arguments, const PlanSizes& sizes, int workers,
                WorkspaceArena& arena, std::span<HeadWork*> heads) {
  if (has_bf16_products()) {
    make_tiled_heads<TiledBackward<BFloat16, BFloat16>>(arguments, sizes, workers, arena, heads);
  } else {
    make_tiled_heads<TiledBackward<BFloat16, float>>(arguments, sizes, workers, arena, heads);
  }
}

}  // namespace sprocket::kernels

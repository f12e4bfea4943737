// Backward on tiles with five products per pair: query blocks go by in ascending order, each with
// its list; dK, dV and dQ of the head are kept in fp32 and added to the caller's at the end.
#include <algorithm>
#include <limits>

#include "kernels/packed_head.h"
#include "kernels/packed_query.h"
#include "kernels/segment_attention_heads.h"

namespace sprocket::kernels {
namespace {

template <class Packed>
struct BackwardScratch {
  explicit BackwardScratch(int dim) : query(dim), dout(dim), products(dim) {
    scores.reserve(kTileRows * kMaxColumns);
    dscores.reserve(kTileRows * kMaxColumns);
    rows.reserve(int64_t{kMaxColumns} * dim);
    if constexpr (std::is_same_v<Packed, BFloat16>) {
      p.reserve(kTileRows * kMaxColumns);
      ds.reserve(kTileRows * kMaxColumns);
      ds_pairs.reserve(kTileRows * kMaxColumns);
    }
  }
  PackedQuery<Packed> query, dout;
  TileProducts<Packed> products;
  AlignedBuffer<float> scores, dscores;
  AlignedBuffer<BFloat16> p, ds, ds_pairs;
  AlignedBuffer<float> rows;  // dQ as [columns][dim]
  alignas(64) float lse[kMaxColumns];
  alignas(64) float lse_rest[kMaxColumns];
  alignas(64) float delta[kMaxColumns];
};

template <class T, class Packed>
class TiledBackward : public BackwardHead {
 public:
  TiledBackward(const BackwardArguments<T>& arguments, int workers)
      : arguments_(arguments), head_(arguments.problem), ops_(tile_ops()) {
    for (int i = 0; i < workers; ++i) {
      scratch_.push_back(std::make_unique<BackwardScratch<Packed>>(head_.dim()));
    }
    // Padded rows before each query block, which locate its part of dq_.
    const auto offsets = arguments.problem.query_offsets;
    query_start_.assign(offsets.size(), 0);
    for (size_t i = 0; i + 1 < offsets.size(); ++i) {
      query_start_[i + 1] = query_start_[i];
      for_each_query_tile(offsets, static_cast<int>(i),
                          [&](const QueryTile& tile) { query_start_[i + 1] += tile.columns; });
    }
    dq_.reserve(query_start_.back() * head_.dim());
  }

  void begin(int64_t batch_head) override {
    head_.begin(batch_head);
    const int64_t size = head_.plan().packed_rows() * head_.dim();
    for (AlignedBuffer<Packed>* buffer : {&k_, &v_}) buffer->reserve(size);
    if constexpr (kPairs) k_transposed_.reserve(size);
    for (AlignedBuffer<float>* buffer : {&dk_, &dv_}) {
      std::fill_n(buffer->reserve(size), size, 0.0f);
    }
    std::fill_n(dq_.data(), query_start_.back() * head_.dim(), 0.0f);
  }

  void load_keys(int id) override {
    if (head_.plan().tiles(id).empty()) return;
    const auto& kv = head_.problem().kv[head_.block(id).buffer];
    head_.pack_rows(kv.k, id, k_.data());
    head_.pack_rows(kv.v, id, v_.data());
    if constexpr (kPairs) head_.transpose_tiles(id, k_.data(), k_transposed_.data());
  }

  void run(int first_query, int last_query, int first_key, int last_key, int worker) override {
    const auto& problem = head_.problem();
    for (int block = first_query; block < last_query; ++block) {
      const auto listed =
          listed_blocks(*problem.table, head_.batch_head(), block, first_key, last_key);
      if (listed.empty()) continue;
      float* dq = dq_.data() + query_start_[block] * head_.dim();
      for_each_query_tile(problem.query_offsets, block, [&](const QueryTile& tile) {
        differentiate(tile, listed, dq, *scratch_[worker]);
        dq += int64_t{tile.columns} * head_.dim();
      });
    }
  }

  void store_query_gradients(int query_block, int worker) override {
    const int dim = head_.dim();
    const float* dq = dq_.data() + query_start_[query_block] * dim;
    float* const rows = scratch_[worker]->rows.data();
    for_each_query_tile(head_.problem().query_offsets, query_block, [&](const QueryTile& tile) {
      transpose_words(dq, dim, tile.columns, tile.columns, rows, dim);
      add_rows(rows, dim, tile.rows, head_.problem().head_dim,
               arguments_.dq.row(head_.batch(), tile.first_row, head_.head()),
               arguments_.dq.row_stride);
      dq += int64_t{tile.columns} * dim;
    });
  }

  void store_key_gradients(int id) override {
    if (head_.plan().tiles(id).empty()) return;
    const KvBlock& block = head_.block(id);
    const KvGradBuffer<T>& target = arguments_.dkv[block.buffer];
    add_tiles(dk_.data(), id, target.dk);
    add_tiles(dv_.data(), id, target.dv);
  }

 private:
  static constexpr bool kPairs = PackedHead<T, Packed>::kPairs;
  using Scratch = BackwardScratch<Packed>;

  void add_tiles(const float* from, int id, const HeadView<float>& to) const {
    int64_t row = head_.block(id).first_row;
    for (const KeyTile& keys : head_.plan().tiles(id)) {
      add_rows(from + keys.offset * head_.dim(), head_.dim(), keys.rows, head_.problem().head_dim,
               to.row(head_.batch(), row, head_.head()), to.row_stride);
      row += keys.rows;
    }
  }

  void load_statistics(const QueryTile& tile, Scratch& scratch) const {
    const int64_t first =
        head_.batch_head() * head_.problem().query_offsets.back() + tile.first_row;
    for (int i = 0; i < tile.columns; ++i) {
      const bool empty =
          i >= tile.rows || arguments_.lse[first + i] == -std::numeric_limits<float>::infinity();
      const double lse = empty ? -kFarBelow : arguments_.lse[first + i] * kLog2E;
      scratch.lse[i] = static_cast<float>(lse);
      scratch.lse_rest[i] = static_cast<float>(lse - scratch.lse[i]);
      scratch.delta[i] = empty ? 0 : arguments_.delta[first + i];
    }
  }

  void differentiate(const QueryTile& tile, std::span<const int32_t> listed, float* dq,
                     Scratch& scratch) {
    const auto& problem = head_.problem();
    const int64_t batch = head_.batch(), head = head_.head();
    scratch.query.pack(problem.q.row(batch, tile.first_row, head), problem.q.row_stride,
                       problem.head_dim, tile, true);
    scratch.dout.pack(arguments_.dout.row(batch, tile.first_row, head), arguments_.dout.row_stride,
                      problem.head_dim, tile, true);
    load_statistics(tile, scratch);
    const float scale = static_cast<float>(problem.scale);
    for (int id : listed) {
      const float bias = static_cast<float>(head_.block(id).bias * kLog2E);
      for (const KeyTile& keys : head_.plan().tiles(id)) {
        const int64_t at = keys.offset * head_.dim();
        TileProducts<Packed>& products = scratch.products;
        products.select(keys.rows, tile.columns);
        products.scores(k_.data() + at, scratch.query.across(), scratch.scores.data());
        products.scores(v_.data() + at, scratch.dout.across(), scratch.dscores.data());
        ops_.gradient({scratch.scores.data(), scratch.dscores.data(), keys.rows, tile.columns,
                       static_cast<float>(problem.scale * kLog2E), bias, scale, scratch.lse,
                       scratch.lse_rest, scratch.delta, scratch.p.data(), scratch.ds.data(),
                       scratch.ds_pairs.data()});
        if constexpr (kPairs) {
          products.key_gradients(scratch.p.data(), scratch.dout.along(), dv_.data() + at);
          products.key_gradients(scratch.ds.data(), scratch.query.along(), dk_.data() + at);
          products.outputs(k_transposed_.data() + at, scratch.ds_pairs.data(), dq);
        } else {
          products.key_gradients(scratch.scores.data(), scratch.dout.along(), dv_.data() + at);
          products.key_gradients(scratch.dscores.data(), scratch.query.along(), dk_.data() + at);
          products.outputs(k_.data() + at, scratch.dscores.data(), dq);
        }
      }
    }
  }

  BackwardArguments<T> arguments_;
  PackedHead<T, Packed> head_;
  TileOps ops_;
  AlignedBuffer<Packed> k_, v_, k_transposed_;
  AlignedBuffer<float> dk_, dv_;
  AlignedBuffer<float> dq_;  // by query tile, [dim][columns]
  std::vector<int64_t> query_start_;
  std::vector<std::unique_ptr<Scratch>> scratch_;
};

}  // namespace

std::unique_ptr<BackwardHead> make_backward_head(const BackwardArguments<float>& arguments,
                                                 int workers) {
  return std::make_unique<TiledBackward<float, float>>(arguments, workers);
}

std::unique_ptr<BackwardHead> make_backward_head(const BackwardArguments<BFloat16>& arguments,
                                                 int workers) {
  if (has_bf16_products()) {
    return std::make_unique<TiledBackward<BFloat16, BFloat16>>(arguments, workers);
  }
  return std::make_unique<TiledBackward<BFloat16, float>>(arguments, workers);
}

}  // namespace sprocket::kernels

// Query-stationary forward on tiles: scores, online softmax and output stay in cache while the KV
// tiles of a query block's list go by.
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
struct ForwardScratch {
  explicit ForwardScratch(int dim) : query(dim), products(dim) {
    scores.reserve(kTileRows * kMaxColumns);
    accumulator.reserve(int64_t{kMaxColumns} * dim);
    rows.reserve(int64_t{kMaxColumns} * dim);
    if constexpr (std::is_same_v<Packed, BFloat16>) pairs.reserve(kTileRows * kMaxColumns);
  }
  PackedQuery<Packed> query;
  TileProducts<Packed> products;
  AlignedBuffer<float> scores;
  AlignedBuffer<BFloat16> pairs;
  AlignedBuffer<float> accumulator;  // [dim][columns]
  AlignedBuffer<float> rows;         // [columns][dim]
  alignas(64) float maximum[kMaxColumns];
  alignas(64) float sum[kMaxColumns];
};

template <class T, class Packed>
class TiledForward : public ForwardHead {
 public:
  TiledForward(const ForwardArguments<T>& arguments, int workers)
      : arguments_(arguments), head_(arguments.problem), ops_(tile_ops()) {
    for (int i = 0; i < workers; ++i) {
      scratch_.push_back(std::make_unique<ForwardScratch<Packed>>(head_.dim()));
    }
  }

  void begin(int64_t batch_head) override {
    head_.begin(batch_head);
    k_.reserve(head_.plan().packed_rows() * head_.dim());
    v_.reserve(head_.plan().packed_rows() * head_.dim());
  }

  void load_keys(int id) override {
    if (head_.plan().tiles(id).empty()) return;
    const auto& kv = head_.problem().kv[head_.block(id).buffer];
    head_.pack_rows(kv.k, id, k_.data());
    head_.pack_rows(kv.v, id, v_.data());
    if constexpr (kPairs) head_.transpose_tiles(id, v_.data(), v_.data());
  }

  void run(int query_block, int worker) override {
    const SegmentTable& table = *head_.problem().table;
    const auto listed = listed_blocks(table, head_.batch_head(), query_block, 0, table.kv_blocks);
    for_each_query_tile(head_.problem().query_offsets, query_block,
                        [&](const QueryTile& tile) { attend(tile, listed, *scratch_[worker]); });
  }

 private:
  static constexpr bool kPairs = PackedHead<T, Packed>::kPairs;
  using Scratch = ForwardScratch<Packed>;

  float* lse_of(const QueryTile& tile) const {
    return arguments_.lse + head_.batch_head() * head_.problem().query_offsets.back() +
           tile.first_row;
  }
  float* out_of(const QueryTile& tile) const {
    return arguments_.out.row(head_.batch(), tile.first_row, head_.head());
  }

  void attend(const QueryTile& tile, std::span<const int32_t> listed, Scratch& scratch) {
    const auto& problem = head_.problem();
    const bool any = std::any_of(listed.begin(), listed.end(),
                                 [&](int id) { return !head_.plan().tiles(id).empty(); });
    if (arguments_.accumulate && !any) return;
    start(tile, scratch);
    scratch.query.pack(problem.q.row(head_.batch(), tile.first_row, head_.head()),
                       problem.q.row_stride, problem.head_dim, tile, false);
    const float factor = static_cast<float>(problem.scale * kLog2E);
    for (int id : listed) {
      for (const KeyTile& keys : head_.plan().tiles(id)) {
        scratch.products.select(keys.rows, tile.columns);
        scratch.products.scores(k_.data() + keys.offset * head_.dim(), scratch.query.across(),
                                scratch.scores.data());
        ops_.softmax({scratch.scores.data(), keys.rows, tile.columns, factor,
                      static_cast<float>(head_.block(id).bias * kLog2E), scratch.maximum,
                      scratch.sum, scratch.accumulator.data(), head_.dim(), scratch.pairs.data()});
        const Packed* weights;
        if constexpr (kPairs) {
          weights = scratch.pairs.data();
        } else {
          weights = scratch.scores.data();
        }
        scratch.products.outputs(v_.data() + keys.offset * head_.dim(), weights,
                                 scratch.accumulator.data());
      }
    }
    finish(tile, scratch);
  }

  // From nothing, or from a former pass: its normalised output, with the weight that its LSE gives
  // it.
  void start(const QueryTile& tile, Scratch& scratch) {
    std::fill_n(scratch.maximum, tile.columns, kFarBelow);
    std::fill_n(scratch.sum, tile.columns, 0.0f);
    const int64_t size = int64_t{tile.columns} * head_.dim();
    std::fill_n(arguments_.accumulate ? scratch.rows.data() : scratch.accumulator.data(), size,
                0.0f);
    if (!arguments_.accumulate) return;
    const float* lse = lse_of(tile);
    for (int i = 0; i < tile.rows; ++i) {
      if (lse[i] == -kInfinity) continue;
      const double lse2 = lse[i] * kLog2E;
      scratch.maximum[i] = static_cast<float>(lse2);
      scratch.sum[i] = static_cast<float>(std::exp2(lse2 - scratch.maximum[i]));
      const float* from = out_of(tile) + i * arguments_.out.row_stride;
      float* to = scratch.rows.data() + int64_t{i} * head_.dim();
      for (int d = 0; d < head_.problem().head_dim; ++d) to[d] = from[d] * scratch.sum[i];
    }
    transpose_words(scratch.rows.data(), tile.columns, head_.dim(), head_.dim(),
                    scratch.accumulator.data(), tile.columns);
  }

  void finish(const QueryTile& tile, Scratch& scratch) {
    transpose_words(scratch.accumulator.data(), head_.dim(), tile.columns, tile.columns,
                    scratch.rows.data(), head_.dim());
    float* lse = lse_of(tile);
    for (int i = 0; i < tile.rows; ++i) {
      const float sum = scratch.sum[i];
      const float inverse = sum == 0 ? 0 : 1 / sum;
      const float* from = scratch.rows.data() + int64_t{i} * head_.dim();
      float* to = out_of(tile) + i * arguments_.out.row_stride;
      for (int d = 0; d < head_.problem().head_dim; ++d) to[d] = from[d] * inverse;
      lse[i] = sum == 0
                   ? -kInfinity
                   : static_cast<float>((scratch.maximum[i] + std::log2(double{sum})) / kLog2E);
    }
  }

  ForwardArguments<T> arguments_;
  PackedHead<T, Packed> head_;
  TileOps ops_;
  AlignedBuffer<Packed> k_, v_;  // V: rows for fp32, [dim][rows] tiles for bf16
  std::vector<std::unique_ptr<Scratch>> scratch_;
};

}  // namespace

std::unique_ptr<ForwardHead> make_forward_head(const ForwardArguments<float>& arguments,
                                               int workers) {
  return std::make_unique<TiledForward<float, float>>(arguments, workers);
}

std::unique_ptr<ForwardHead> make_forward_head(const ForwardArguments<BFloat16>& arguments,
                                               int workers) {
  if (has_bf16_products()) {
    return std::make_unique<TiledForward<BFloat16, BFloat16>>(arguments, workers);
  }
  return std::make_unique<TiledForward<BFloat16, float>>(arguments, workers);
}

}  // namespace sprocket::kernels

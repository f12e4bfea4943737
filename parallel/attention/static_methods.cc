// Methods whose selection depends on places alone: dense, and a window of cubes (sliding tile
// attention, arXiv 2502.04507).
#include <algorithm>
#include <array>

#include "base/error.h"
#include "parallel/attention/attention_method.h"

namespace sprocket::parallel {
namespace {

class StaticMethod : public FineStageMethod {
 public:
  explicit StaticMethod(const MethodContext& context) : context_(context) {}

  Selection prepare(const ShardTensors& tensors, const Selection& saved) override {
    dtype_ = tensors.q.scalar_type();
    if (saved.table) return saved;
    Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.select");
    Selection selection;
    selection.table = std::make_shared<kernels::SegmentTable>(
        table(static_cast<int>(tensors.q.size(0)), static_cast<int>(tensors.q.size(2))));
    return selection;
  }

 protected:
  virtual kernels::SegmentTable table(int batch, int heads) const = 0;
  MethodContext context_;
};

class DenseMethod : public StaticMethod {
 public:
  using StaticMethod::StaticMethod;

 private:
  kernels::SegmentTable table(int batch, int heads) const override {
    return kernels::make_dense_table(batch, heads, context_.own_blocks(), context_.layout.blocks());
  }
};

class SlidingTileMethod : public StaticMethod {
 public:
  SlidingTileMethod(const MethodContext& context, const SlidingTileSpec& spec)
      : StaticMethod(context), spec_(spec) {
    SPROCKET_CHECK(context.layout.spec.order != BlockOrder::kHilbert, "there are no cubes");
  }

 private:
  using Cube = std::array<int, 3>;

  Cube cube_of(int block) const {
    const auto position = context_.layout.position(context_.layout.block_offsets[block]);
    const Grid& cube = context_.layout.spec.cube;
    return {position[0] / cube.t, position[1] / cube.h, position[2] / cube.w};
  }

  // The same for all samples and heads. The window has its full extent at the border too: there its
  // centre is moved inwards.
  kernels::SegmentTable table(int batch, int heads) const override {
    const TokenLayout& layout = context_.layout;
    const Grid &grid = layout.spec.grid, &cube = layout.spec.cube;
    const Cube cubes = {(grid.t + cube.t - 1) / cube.t, (grid.h + cube.h - 1) / cube.h,
                        (grid.w + cube.w - 1) / cube.w};
    const int prefix = layout.prefix_blocks(), first = context_.first_block();
    std::vector<Cube> places;
    for (int block = prefix; block < layout.blocks(); ++block) places.push_back(cube_of(block));

    kernels::SegmentTable one{1, 1, context_.own_blocks(), layout.blocks(), {0}, {}};
    for (int i = 0; i < one.query_blocks; ++i) {
      const bool whole = first + i < prefix;  // prefix queries attend to everything
      const Cube centre = whole ? Cube{} : places[first + i - prefix];
      for (int block = 0; block < layout.blocks(); ++block) {
        if (whole || block < prefix || in_window(centre, places[block - prefix], cubes)) {
          one.kv_block.push_back(block);
        }
      }
      one.row_offsets.push_back(static_cast<int64_t>(one.kv_block.size()));
    }
    return repeat(one, batch, heads);
  }

  bool in_window(const Cube& query, const Cube& key, const Cube& cubes) const {
    for (int axis = 0; axis < 3; ++axis) {
      const int extent = std::min(spec_.window[axis], cubes[axis]);
      const int first = std::clamp(query[axis] - extent / 2, 0, cubes[axis] - extent);
      if (key[axis] < first || key[axis] >= first + extent) return false;
    }
    return true;
  }

  static kernels::SegmentTable repeat(const kernels::SegmentTable& one, int batch, int heads) {
    kernels::SegmentTable table{batch, heads, one.query_blocks, one.kv_blocks, {0}, {}};
    for (int i = 0; i < batch * heads; ++i) {
      const int64_t before = table.row_offsets.back();
      for (size_t row = 1; row < one.row_offsets.size(); ++row) {
        table.row_offsets.push_back(before + one.row_offsets[row]);
      }
      table.kv_block.insert(table.kv_block.end(), one.kv_block.begin(), one.kv_block.end());
    }
    return table;
  }

  SlidingTileSpec spec_;
};

}  // namespace

std::unique_ptr<AttentionMethod> make_dense_method(const MethodContext& context) {
  return std::make_unique<DenseMethod>(context);
}

std::unique_ptr<AttentionMethod> make_sliding_tile_method(const MethodContext& context,
                                                          const SlidingTileSpec& spec) {
  return std::make_unique<SlidingTileMethod>(context, spec);
}

}  // namespace sprocket::parallel

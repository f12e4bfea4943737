#include "parallel/attention/key_shards.h"

#include <algorithm>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "parallel/attention/key_rows_device.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

int size(const at::Tensor& x, int dim) { return static_cast<int>(x.size(dim)); }

}  // namespace

KeyShards make_key_shards(const OuterShards& all, int prefix_blocks,
                          const std::vector<int>& widths) {
  OuterShards blocks = all;
  const int replicated = blocks.ranks() > 1 ? prefix_blocks : 0;
  for (int32_t& block : blocks.blocks) block = std::max(block, replicated);
  KeyShards keys;
  keys.whole = kernels::make_pyramid_layout(blocks.block_offsets, widths);
  keys.own = kernels::make_pyramid_layout(blocks.own_offsets(), widths);
  keys.segments = {keys.whole.segment_rows_offsets, {}, blocks.self, {}, {}};
  for (const int32_t block : blocks.blocks) {
    keys.segments.blocks.push_back(keys.whole.first_segment[block]);
  }
  if (widths.size() > 1) keys.segments.bias = keys.whole.bias;
  keys.segments.replicated_row.assign(keys.whole.first_segment[replicated], -1);
  for (int block = 0; block < replicated; ++block) {
    int64_t row = blocks.block_offsets[block];
    const kernels::SegmentRange tokens = keys.whole.segments_of(block, 1);
    for (int segment = tokens.first; segment < tokens.first + tokens.count; ++segment) {
      keys.segments.replicated_row[segment] = row;
      row += keys.segments.block_rows(segment);
    }
  }
  return keys;
}

at::Tensor expand_rows(const KeyShards& keys, const at::Tensor& x_BLHD, int threads) {
  if (keys.whole.levels() == 1) return x_BLHD;
  const at::Tensor rows = at::empty(
      {x_BLHD.size(0), keys.own.rows(), x_BLHD.size(2), x_BLHD.size(3)}, x_BLHD.options());
  if (!rows.is_cpu()) {
    device::expand_pyramid(x_BLHD, keys.own, rows);
    return rows;
  }
  dispatch_compute_type(x_BLHD.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    kernels::expand_pyramid<T>(const_head_view<T>(x_BLHD), keys.own, size(rows, 0), size(rows, 2),
                               size(rows, 3), head_view<T>(rows), threads);
  });
  return rows;
}

at::Tensor gather_row_gradients(const KeyShards& keys, const at::Tensor& drows, int threads) {
  if (keys.whole.levels() == 1) return drows;
  const at::Tensor dx =
      at::zeros({drows.size(0), keys.own.tokens(), drows.size(2), drows.size(3)}, drows.options());
  if (!dx.is_cpu()) {
    device::add_pyramid_gradient(drows, keys.own, dx);
    return dx;
  }
  dispatch_accumulator_type(dx.scalar_type(), [&](auto zero) {
    using A = decltype(zero);
    kernels::add_pyramid_gradient<A>(const_head_view<A>(drows), keys.own, size(dx, 0), size(dx, 2),
                                     size(dx, 3), head_view<A>(dx), threads);
  });
  return dx;
}

}  // namespace sprocket::parallel

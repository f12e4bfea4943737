#include "parallel/attention/key_shards.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

int size(const at::Tensor& x, int dim) { return static_cast<int>(x.size(dim)); }

}  // namespace

KeyShards make_key_shards(const OuterShards& blocks, const std::vector<int>& widths) {
  KeyShards keys;
  keys.whole = kernels::make_pyramid_layout(blocks.block_offsets, widths);
  keys.own = kernels::make_pyramid_layout(blocks.own_offsets(), widths);
  keys.segments = {keys.whole.segment_rows_offsets, {}, blocks.self, {}};
  for (const int32_t block : blocks.blocks) {
    keys.segments.blocks.push_back(keys.whole.first_segment[block]);
  }
  if (widths.size() > 1) keys.segments.bias = keys.whole.bias;
  return keys;
}

at::Tensor expand_rows(const KeyShards& keys, const at::Tensor& x_BLHD, int threads) {
  if (keys.whole.levels() == 1) return x_BLHD;
  const at::Tensor rows = at::empty(
      {x_BLHD.size(0), keys.own.rows(), x_BLHD.size(2), x_BLHD.size(3)}, x_BLHD.options());
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
  dispatch_accumulator_type(dx.scalar_type(), [&](auto zero) {
    using A = decltype(zero);
    kernels::add_pyramid_gradient<A>(const_head_view<A>(drows), keys.own, size(dx, 0), size(dx, 2),
                                     size(dx, 3), head_view<A>(dx), threads);
  });
  return dx;
}

}  // namespace sprocket::parallel

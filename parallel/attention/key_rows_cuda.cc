#include <algorithm>

#include "kernels/cuda/pyramid.h"
#include "parallel/attention/key_rows_device.h"
#include "parallel/device/cuda_tensor.h"
#include "parallel/device/host_copy.h"

namespace sprocket::parallel::device {
namespace {

namespace kc = kernels::cuda;
using cuda::extent;

std::vector<int64_t> first_rows(const kernels::PyramidLayout& layout) {
  std::vector<int64_t> rows;
  for (int block = 0; block < layout.blocks(); ++block) rows.push_back(layout.first_row(block));
  return rows;
}

// A layout in device memory, for the call that is enqueued while this lives.
class Rows {
 public:
  Rows(const kernels::PyramidLayout& layout, const at::Device& device)
      : block_offsets_(longs_on(layout.block_offsets, device)),
        first_rows_(longs_on(first_rows(layout), device)) {
    SPROCKET_CHECK_LE(layout.levels(), kernels::kMostLevels);
    view_.blocks = layout.blocks();
    view_.levels = layout.levels();
    std::ranges::copy(layout.widths, view_.widths);
    view_.block_offsets = cuda::in<int64_t>(block_offsets_);
    view_.first_rows = cuda::in<int64_t>(first_rows_);
  }
  const kc::DevicePyramidRows& view() const { return view_; }

 private:
  at::Tensor block_offsets_, first_rows_;
  kc::DevicePyramidRows view_;
};

}  // namespace

void expand_pyramid(const at::Tensor& x_BLHD, const kernels::PyramidLayout& layout,
                    const at::Tensor& rows_BRHD) {
  const Rows on_device(layout, x_BLHD.device());
  kc::expand_pyramid(cuda::const_rows_of(x_BLHD), dtype_of(x_BLHD.scalar_type()), on_device.view(),
                     extent(x_BLHD, 0), extent(x_BLHD, 2), extent(x_BLHD, 3),
                     cuda::rows_of(rows_BRHD), stream_of(x_BLHD));
}

void add_pyramid_gradient(const at::Tensor& drows_BRHD, const kernels::PyramidLayout& layout,
                          const at::Tensor& dx_BLHD) {
  const Rows on_device(layout, dx_BLHD.device());
  kc::add_pyramid_gradient(cuda::const_view_of<float>(drows_BRHD), on_device.view(),
                           extent(dx_BLHD, 0), extent(dx_BLHD, 2), extent(dx_BLHD, 3),
                           cuda::view_of<float>(dx_BLHD), stream_of(dx_BLHD));
}

}  // namespace sprocket::parallel::device

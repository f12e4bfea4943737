#include "models/patches.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>

#include "base/error.h"

namespace sprocket::models {
namespace {

// The layout's raster index of tokens [first, first + count), borrowed.
at::Tensor raster_index(const parallel::TokenLayout& layout, int64_t first, int64_t count) {
  SPROCKET_CHECK(0 <= first && first + count <= layout.tokens(), "tokens {} to {} of {}", first,
                 first + count, layout.tokens());
  return at::from_blob(const_cast<int64_t*>(layout.raster_index.data()) + first, {count},
                       at::kLong);
}

}  // namespace

parallel::Grid token_grid(int64_t t, int64_t h, int64_t w, const Patch& patch) {
  if (t % patch.t != 0 || h % patch.h != 0 || w % patch.w != 0) {
    throw InputError(fmt::format(
        "latent of {} x {} x {} (t, h, w): expected multiples of the patch {} x {} x {}", t, h, w,
        patch.t, patch.h, patch.w));
  }
  return {static_cast<int>(t / patch.t), static_cast<int>(h / patch.h),
          static_cast<int>(w / patch.w)};
}

at::Tensor patchify_tokens(const at::Tensor& latent_BCTHW, const parallel::TokenLayout& layout,
                           const Patch& patch, int64_t first, int64_t count, FeatureOrder order) {
  SPROCKET_CHECK_EQ(latent_BCTHW.dim(), 5);
  const int64_t batch = latent_BCTHW.size(0), channels = latent_BCTHW.size(1);
  const parallel::Grid& grid = layout.spec.grid;
  SPROCKET_CHECK(
      grid == token_grid(latent_BCTHW.size(2), latent_BCTHW.size(3), latent_BCTHW.size(4), patch),
      "the layout is for another video");
  // [b, c, t, pt, h, ph, w, pw] with t, h, w leading and the features last
  const at::Tensor cells =
      latent_BCTHW.reshape({batch, channels, grid.t, patch.t, grid.h, patch.h, grid.w, patch.w});
  const at::Tensor tokens = order == FeatureOrder::kChannelFirst
                                ? cells.permute({0, 2, 4, 6, 1, 3, 5, 7})
                                : cells.permute({0, 2, 4, 6, 3, 5, 7, 1});
  return at::index_select(tokens.reshape({batch, grid.tokens(), channels * patch.cells()}), 1,
                          raster_index(layout, first, count));
}

at::Tensor unpatchify_tokens(const at::Tensor& tokens_BLF, const parallel::TokenLayout& layout,
                             const Patch& patch, FeatureOrder order) {
  const parallel::Grid& grid = layout.spec.grid;
  SPROCKET_CHECK_EQ(tokens_BLF.size(1), grid.tokens());
  const int64_t batch = tokens_BLF.size(0), channels = tokens_BLF.size(2) / patch.cells();
  at::Tensor raster = at::empty(tokens_BLF.sizes(), tokens_BLF.options());
  raster.index_copy_(1, raster_index(layout, layout.prefix_tokens(), grid.tokens()), tokens_BLF);
  const at::Tensor cells =
      order == FeatureOrder::kChannelFirst
          ? raster.view({batch, grid.t, grid.h, grid.w, channels, patch.t, patch.h, patch.w})
                .permute({0, 4, 1, 5, 2, 6, 3, 7})
          : raster.view({batch, grid.t, grid.h, grid.w, patch.t, patch.h, patch.w, channels})
                .permute({0, 7, 1, 4, 2, 5, 3, 6});
  return cells.reshape({batch, channels, grid.t * patch.t, grid.h * patch.h, grid.w * patch.w})
      .contiguous();
}

}  // namespace sprocket::models

#include <algorithm>

#include <ATen/ops/empty.h>

#include "kernels/cuda/block_pooling.h"
#include "kernels/cuda/pyramid.h"
#include "parallel/attention/block_summaries_device.h"
#include "parallel/attention/device_query.h"
#include "parallel/device/cuda_tensor.h"
#include "parallel/device/host_copy.h"

namespace sprocket::parallel::device {
namespace {

namespace kc = kernels::cuda;
using cuda::extent;

int blocks_of(const std::vector<int64_t>& offsets) { return static_cast<int>(offsets.size()) - 1; }

}  // namespace

at::Tensor block_means(const at::Tensor& x_BLHD, const std::vector<int64_t>& offsets) {
  const at::Tensor on_device = longs_on(offsets, x_BLHD.device());
  const at::Tensor means =
      at::empty({x_BLHD.size(0), x_BLHD.size(2), blocks_of(offsets), x_BLHD.size(3)},
                x_BLHD.options().dtype(at::kFloat));
  kc::pool_blocks(cuda::const_rows_of(x_BLHD), dtype_of(x_BLHD.scalar_type()),
                  cuda::in<int64_t>(on_device), blocks_of(offsets), extent(x_BLHD, 0),
                  extent(x_BLHD, 2), extent(x_BLHD, 3), cuda::out<float>(means), stream_of(x_BLHD));
  return means;
}

at::Tensor sub_block_means(const at::Tensor& x_BLHD, const std::vector<int64_t>& offsets, int parts,
                           int capacity) {
  const at::Tensor on_device = longs_on(offsets, x_BLHD.device());
  const at::Tensor means =
      at::empty({x_BLHD.size(0), x_BLHD.size(2), blocks_of(offsets), parts * x_BLHD.size(3)},
                x_BLHD.options().dtype(at::kFloat));
  kc::pool_sub_blocks(cuda::const_rows_of(x_BLHD), dtype_of(x_BLHD.scalar_type()),
                      cuda::in<int64_t>(on_device), blocks_of(offsets), parts, capacity,
                      extent(x_BLHD, 0), extent(x_BLHD, 2), extent(x_BLHD, 3),
                      cuda::out<float>(means), stream_of(x_BLHD));
  return means;
}

void add_block_mean_gradients(const at::Tensor& dmeans, const std::vector<int64_t>& offsets,
                              const at::Tensor& dx_BLHD) {
  const at::Tensor on_device = longs_on(offsets, dx_BLHD.device());
  kc::add_pooling_gradient(cuda::in<float>(dmeans), cuda::in<int64_t>(on_device),
                           blocks_of(offsets), extent(dx_BLHD, 0), extent(dx_BLHD, 2),
                           extent(dx_BLHD, 3), cuda::view_of<float>(dx_BLHD), stream_of(dx_BLHD));
}

at::Tensor gather_samples(const at::Tensor& x_BLHD, const kernels::BlockSamples& samples) {
  const at::Tensor rows = ints_on(samples.rows, x_BLHD.device());
  const at::Tensor out =
      at::empty({x_BLHD.size(0), x_BLHD.size(2), samples.blocks, samples.samples * x_BLHD.size(3)},
                x_BLHD.options().dtype(at::kFloat));
  kc::gather_samples(cuda::const_rows_of(x_BLHD), dtype_of(x_BLHD.scalar_type()),
                     cuda::in<int32_t>(rows), int64_t{samples.blocks} * samples.samples,
                     extent(x_BLHD, 0), extent(x_BLHD, 2), extent(x_BLHD, 3), cuda::out<float>(out),
                     stream_of(x_BLHD));
  return out;
}

at::Tensor similarity_caps(const at::Tensor& k_BLHD, const std::vector<int64_t>& offsets,
                           std::span<const int> widths, std::span<const double> thresholds) {
  SPROCKET_CHECK_LE(widths.size(), static_cast<size_t>(kernels::kMostLevels));
  SPROCKET_CHECK_EQ(thresholds.size() + 1, widths.size());
  const at::Tensor on_device = longs_on(offsets, k_BLHD.device());
  kc::DevicePyramidRows rows;
  rows.blocks = blocks_of(offsets);
  rows.levels = static_cast<int>(widths.size());
  std::ranges::copy(widths, rows.widths);
  rows.block_offsets = cuda::in<int64_t>(on_device);
  kc::CapThresholds caps_thresholds;
  std::ranges::copy(thresholds, caps_thresholds.of_level);
  const at::Tensor caps =
      at::empty({k_BLHD.size(0), k_BLHD.size(2), rows.blocks}, k_BLHD.options().dtype(at::kByte));
  kc::similarity_caps(cuda::const_rows_of(k_BLHD), dtype_of(k_BLHD.scalar_type()), rows,
                      longest_block(offsets), caps_thresholds, extent(k_BLHD, 0), extent(k_BLHD, 2),
                      extent(k_BLHD, 3), cuda::out<uint8_t>(caps), stream_of(k_BLHD));
  return caps;
}

}  // namespace sprocket::parallel::device

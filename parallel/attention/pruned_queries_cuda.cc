#include <ATen/ops/empty.h>

#include "kernels/cuda/query_pruning.h"
#include "parallel/attention/device_query.h"
#include "parallel/attention/pruned_queries_device.h"
#include "parallel/device/cuda_tensor.h"
#include "parallel/device/host_copy.h"

namespace sprocket::parallel::device {
namespace {

namespace kc = kernels::cuda;
using cuda::extent;

// What the kernels behind a choice read of its layout.
kc::DevicePruningLayout layout_of(const PruningTensors& pruning, int64_t tokens,
                                  int64_t kept_rows) {
  kc::DevicePruningLayout layout;
  layout.query_blocks = static_cast<int>(pruning.offsets.numel()) - 1;
  layout.tokens = tokens;
  layout.kept_rows = kept_rows;
  layout.token_offsets = cuda::in<int64_t>(pruning.token_offsets);
  layout.offsets = cuda::in<int64_t>(pruning.offsets);
  return layout;
}

kc::DeviceQueryPruning rows_of_heads(const PruningTensors& pruning) {
  return {cuda::out<int32_t>(pruning.rows), cuda::out<int32_t>(pruning.kept),
          cuda::out<int32_t>(pruning.source)};
}

std::vector<int32_t> ints_of(const at::Tensor& host, int64_t first, int64_t count) {
  const int32_t* const values = host.const_data_ptr<int32_t>() + first;
  return {values, values + count};
}

}  // namespace

kernels::QueryPruning prune_queries(const at::Tensor& q_BLHD,
                                    std::span<const int64_t> block_offsets,
                                    std::span<const kernels::TokenPosition> positions,
                                    const kernels::PruningSpec& spec, int first_exempt_blocks) {
  const kernels::PruningLayout shape =
      kernels::make_pruning_layout(block_offsets, positions, spec, first_exempt_blocks);
  const at::Device device = q_BLHD.device();
  static_assert(sizeof(kernels::TokenPosition) == 3 * sizeof(int32_t));
  const at::Tensor token_offsets = longs_on(shape.token_offsets, device),
                   offsets = longs_on(shape.offsets, device), places = bytes_on(positions, device),
                   centre = ints_on(shape.centre, device),
                   previous = ints_on(shape.previous, device),
                   window = ints_on(shape.window, device), keep = ints_on(shape.keep, device),
                   keep_if_redundant = ints_on(shape.keep_if_redundant, device);
  kc::DevicePruningLayout layout;
  layout.query_blocks = static_cast<int>(shape.offsets.size()) - 1;
  layout.tokens = shape.token_offsets.back();
  layout.kept_rows = shape.offsets.back();
  layout.largest_block = longest_block(shape.token_offsets);
  layout.token_offsets = cuda::in<int64_t>(token_offsets);
  layout.offsets = cuda::in<int64_t>(offsets);
  layout.positions = cuda::in<int32_t>(places);
  layout.centre = cuda::in<int32_t>(centre);
  layout.previous = shape.previous.empty() ? nullptr : cuda::in<int32_t>(previous);
  layout.window = cuda::in<int32_t>(window);
  layout.keep = cuda::in<int32_t>(keep);
  layout.keep_if_redundant = cuda::in<int32_t>(keep_if_redundant);
  layout.recovery = spec.recovery;
  layout.redundancy_threshold = spec.redundancy_threshold.value_or(0);

  // Rows, kept and source of all heads, one behind the other: one copy brings them to the host.
  const int64_t batch_heads = q_BLHD.size(0) * q_BLHD.size(2);
  const int64_t rows = batch_heads * layout.query_blocks, kept = batch_heads * layout.kept_rows,
                source = batch_heads * layout.tokens;
  const at::Tensor chosen = at::empty({rows + kept + source}, q_BLHD.options().dtype(at::kInt));
  int32_t* const to = cuda::out<int32_t>(chosen);
  kc::prune_queries(cuda::const_rows_of(q_BLHD), dtype_of(q_BLHD.scalar_type()), layout,
                    extent(q_BLHD, 0), extent(q_BLHD, 2), extent(q_BLHD, 3),
                    {to, to + rows, to + rows + kept}, stream_of(q_BLHD));
  const at::Tensor host = chosen.cpu();
  kernels::QueryPruning pruning;
  pruning.batch = extent(q_BLHD, 0);
  pruning.heads = extent(q_BLHD, 2);
  pruning.token_offsets = shape.token_offsets;
  pruning.offsets = shape.offsets;
  pruning.rows = ints_of(host, 0, rows);
  pruning.kept = ints_of(host, rows, kept);
  pruning.source = ints_of(host, rows + kept, source);
  return pruning;
}

PruningTensors upload_pruning(const kernels::QueryPruning& pruning, const at::Device& device) {
  return {longs_on(pruning.token_offsets, device), longs_on(pruning.offsets, device),
          ints_on(pruning.rows, device), ints_on(pruning.kept, device),
          ints_on(pruning.source, device)};
}

void gather_rows(const at::Tensor& from_BLHD, const at::Tensor& index, const at::Tensor& to_BRHD) {
  kc::gather_rows(cuda::const_rows_of(from_BLHD), dtype_of(from_BLHD.scalar_type()),
                  cuda::in<int32_t>(index), to_BRHD.size(1), extent(to_BRHD, 0), extent(to_BRHD, 2),
                  extent(to_BRHD, 3), cuda::rows_of(to_BRHD), stream_of(from_BLHD));
}

at::Tensor kept_means(const at::Tensor& kept_BRHD, const PruningTensors& pruning) {
  const kc::DevicePruningLayout layout = layout_of(pruning, 0, kept_BRHD.size(1));
  const at::Tensor means =
      at::empty({kept_BRHD.size(0), kept_BRHD.size(2), layout.query_blocks, kept_BRHD.size(3)},
                kept_BRHD.options().dtype(at::kFloat));
  kc::kept_means(cuda::const_rows_of(kept_BRHD), dtype_of(kept_BRHD.scalar_type()), layout,
                 rows_of_heads(pruning), extent(kept_BRHD, 0), extent(kept_BRHD, 2),
                 extent(kept_BRHD, 3), cuda::out<float>(means), stream_of(kept_BRHD));
  return means;
}

void recover_rows_backward(const at::Tensor& dout_BLHD, const PruningTensors& pruning,
                           const at::Tensor& dkept_BRHD) {
  kc::recover_rows_backward(cuda::const_rows_of(dout_BLHD), dtype_of(dout_BLHD.scalar_type()),
                            layout_of(pruning, dout_BLHD.size(1), dkept_BRHD.size(1)),
                            rows_of_heads(pruning), extent(dout_BLHD, 0), extent(dout_BLHD, 2),
                            extent(dout_BLHD, 3), cuda::rows_of(dkept_BRHD), stream_of(dout_BLHD));
}

void scatter_query_gradients(const at::Tensor& dkept_BRHD, const PruningTensors& pruning,
                             const at::Tensor& dq_BLHD) {
  kc::scatter_query_gradients(cuda::const_view_of<float>(dkept_BRHD),
                              layout_of(pruning, dq_BLHD.size(1), dkept_BRHD.size(1)),
                              rows_of_heads(pruning), extent(dq_BLHD, 0), extent(dq_BLHD, 2),
                              extent(dq_BLHD, 3), cuda::view_of<float>(dq_BLHD),
                              stream_of(dq_BLHD));
}

}  // namespace sprocket::parallel::device

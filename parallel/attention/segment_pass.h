// The segment attention kernel on LibTorch tensors, of the processor or of a device.
//
// Shapes: q, out, dout, dq [B, Lq, H, D]; lse, delta [B, H, Lq]; a KV buffer's k and v [B, rows, H,
// D] with any strides, the last dim contiguous (a pool of rows without batch and head dims is
// expanded with stride 0). out, lse, delta and gradients are in the accumulator type.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kernels/segment_attention.h"
#include "parallel/attention/device_query.h"
#include "parallel/comm/communicator.h"

namespace sprocket::parallel {

struct KvTensors {
  at::Tensor k, v;
};

// What every pass of one attention call shares.
struct QuerySide {
  at::Tensor q_BLHD;
  std::vector<int64_t> query_offsets;
  std::shared_ptr<const kernels::SegmentTable> table;
  std::vector<int32_t> query_rows;  // [B * H * query blocks] rows in use; empty: all
  double scale = 1;
  int threads = 1;
  comm::Communicator* progress = nullptr;  // advanced while the kernel computes; null: nothing is
  std::shared_ptr<const DeviceQuery> device;  // of tensors on a device, made by upload
};

// Makes query.device for what the query side holds now; nothing on the processor.
void upload(QuerySide& query);

// Merges the attention over the mapped blocks into (out, lse), which start as (0, -inf). heads: of
// batch x head, the ones that are computed; null: all.
void forward_pass(const QuerySide& query, const std::vector<KvTensors>& kv,
                  const kernels::KvBlockMap& map, const at::Tensor& out_BLHD,
                  const at::Tensor& lse_BHL, const std::optional<kernels::HeadRange>& heads = {});

at::Tensor row_delta(const at::Tensor& out_BLHD, const at::Tensor& dout_BLHD, int threads);

// Adds to dq and to the gradient buffers (parallel to kv).
void backward_pass(const QuerySide& query, const std::vector<KvTensors>& kv,
                   const kernels::KvBlockMap& map, const at::Tensor& dout_BLHD,
                   const at::Tensor& lse_BHL, const at::Tensor& delta_BHL,
                   const at::Tensor& dq_BLHD, const std::vector<KvTensors>& dkv,
                   const std::optional<kernels::HeadRange>& heads = {});

}  // namespace sprocket::parallel

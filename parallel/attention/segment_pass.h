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
  std::shared_ptr<DeviceForm> device;      // of tensors on a device, from attach_device_form
};

// To be called when the table, the offsets and the rows are what the passes read. Nothing on the
// processor.
void attach_device_form(QuerySide& query);

// What the forward passes of a call merge into.
struct PassOutput {
  at::Tensor out_BLHD, lse_BHL;
  bool untouched = true;  // they hold (0, -inf): no pass has merged into them
};

// (0, -inf) for the rows of q.
PassOutput empty_output(const at::Tensor& q_BLHD);

// Merges the attention over the mapped blocks into the output. heads: of batch x head, the ones
// that are computed; null: all.
void forward_pass(const QuerySide& query, const std::vector<KvTensors>& kv,
                  const kernels::KvBlockMap& map, PassOutput& output,
                  const std::optional<kernels::HeadRange>& heads = {});

// What the backward passes of a call read beside its inputs: what all its forward passes made
// together, and the gradient of that.
struct OutputSide {
  at::Tensor dout_BLHD;  // in the type of q
  at::Tensor lse_BHL, delta_BHL;
  at::Tensor out_BLHD;  // undefined: not at hand here, and no pass is dense (dense_rows.h)
};

// Makes delta, the row sums of out * dout. out in the accumulator type.
OutputSide output_side(const at::Tensor& out_BLHD, const at::Tensor& lse_BHL,
                       const at::Tensor& dout_BLHD, int threads);

// Adds to dq and to the gradient buffers (parallel to kv).
void backward_pass(const QuerySide& query, const std::vector<KvTensors>& kv,
                   const kernels::KvBlockMap& map, const OutputSide& output,
                   const at::Tensor& dq_BLHD, const std::vector<KvTensors>& dkv,
                   const std::optional<kernels::HeadRange>& heads = {});

}  // namespace sprocket::parallel

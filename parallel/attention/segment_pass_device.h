// The twins of segment_pass.h for tensors on a CUDA device: bf16, heads of 64 or 128 channels,
// blocks of at most 128 rows. `query.device` must be there. They enqueue and return.
// Dense passes (dense_rows.h) go through LibTorch, all others through the project's kernel.
#pragma once

#include "parallel/attention/segment_pass.h"

namespace sprocket::parallel::device {

void forward_pass(const QuerySide& query, const std::vector<KvTensors>& kv,
                  const kernels::KvBlockMap& map, PassOutput& output,
                  const std::optional<kernels::HeadRange>& heads);

at::Tensor row_delta(const at::Tensor& out_BLHD, const at::Tensor& dout_BLHD);

void backward_pass(const QuerySide& query, const std::vector<KvTensors>& kv,
                   const kernels::KvBlockMap& map, const OutputSide& output,
                   const at::Tensor& dq_BLHD, const std::vector<KvTensors>& dkv,
                   const std::optional<kernels::HeadRange>& heads);

}  // namespace sprocket::parallel::device

// Coarse attention over block means and the selection that its scores make, on the device: what
// kernels/coarse_attention.h describes, with the score of the block means.
//
//   S = scale * qc kc^T,   out = softmax(S) vc over all blocks,   selection of the largest S
//
// Scores have the bits of the host's on processors with fused multiply-adds, so the table is the
// host's table. A row of scores lives in shared memory; no array of query_blocks * kv_blocks
// exists.
//
// Pointers are to device memory. Everything is asynchronous on `stream`, allocates nothing and
// throws CudaError when a launch is refused. A broken precondition is InternalError, and so are
// more blocks than fit: where a block of threads may have 99 KiB of shared memory 5,000 KV blocks
// in the forward, and 2,500 KV or query blocks in the backward; with 227 KiB 13,000 and 6,600.
#pragma once

#include <cstdint>

#include "base/stream.h"
#include "kernels/cuda/device_table.h"
#include "kernels/prefix_rule.h"

namespace sprocket::kernels::cuda {

struct DeviceCoarseProblem {
  int batch = 0;
  int heads = 0;
  int query_blocks = 0;  // held by this call
  int kv_blocks = 0;     // all of them, prefix included
  int head_dim = 0;
  double scale = 1;
  const float* qc = nullptr;  // [batch * heads, query_blocks, head_dim]
  const float* kc = nullptr;  // [batch * heads, kv_blocks, head_dim]
  const float* vc = nullptr;  // likewise; may be null where no output is asked for
  int first_query_block = 0;  // id of the call's first query block
  int prefix_blocks = 0;
  PrefixRule prefix_rule = PrefixRule::kExempt;
};

// Pairs of the table that select_and_attend makes.
int64_t selected_pairs(const DeviceCoarseProblem& problem, int k);

// The table of the call's query blocks, in `to`, with max_pairs = selected_pairs; k as on the host.
// out, if not null: [batch * heads, query_blocks, head_dim], overwritten.
DeviceTable select_and_attend(const DeviceCoarseProblem& problem, int k,
                              const DeviceTableBuffers& to, float* out, StreamView stream);

// The same output without a selection.
void coarse_attend(const DeviceCoarseProblem& problem, float* out, StreamView stream);

// Device memory that coarse_attend_backward works in: 12 bytes for every query block.
int64_t coarse_backward_workspace_bytes(const DeviceCoarseProblem& problem);

// Gradients of coarse_attend for dout [batch * heads, query_blocks, head_dim]. Overwrites dqc, and
// dkc and dvc with the sums over the call's query blocks. workspace: 4-byte aligned, any contents.
void coarse_attend_backward(const DeviceCoarseProblem& problem, const float* dout, float* dqc,
                            float* dkc, float* dvc, void* workspace, StreamView stream);

}  // namespace sprocket::kernels::cuda

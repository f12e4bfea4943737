// Scores between blocks from sampled tokens on the device: what kernels/sampled_scores.h describes.
//
// Logits are the chains of multiply-adds of the host, in fp32 and without tensor cores; the sums of
// the exponentials have an order of their own, so scores differ from the host's in their last bits.
// A row depends neither on which other query blocks a call holds nor on the tiles.
//
// Pointers are to device memory. Everything is asynchronous on `stream`, allocates nothing and
// throws CudaError when a launch is refused. A broken precondition is InternalError, and so are
// more video blocks than fit: 5,000 where a block of threads may have 99 KiB of shared memory.
#pragma once

#include <cstdint>

#include "base/stream.h"
#include "kernels/sampled_score.h"

namespace sprocket::kernels::cuda {

// Samples as gather_samples makes them, [batch, heads, blocks, samples, head_dim].
struct DeviceSampledProblem {
  int batch = 0;
  int heads = 0;
  int query_blocks = 0;  // held by this call
  int kv_blocks = 0;     // all of them, prefix included
  int samples = 0;       // at least 1
  int head_dim = 0;
  double scale = 1;  // > 0
  SampledScore score = SampledScore::kSoftmax;
  const float* q = nullptr;
  const float* k = nullptr;
  const int32_t* q_counts = nullptr;  // [query_blocks] slots in use, the first ones
  const int32_t* k_counts = nullptr;  // [kv_blocks]
  int first_query_block = 0;          // id of the call's first query block
  int prefix_blocks = 0;              // blocks [0, prefix_blocks) are no video blocks
};

// scores: [batch * heads, query_blocks, kv_blocks - prefix_blocks], as DeviceScores takes them.
// Rows of prefix query blocks are not written.
void sampled_scores(const DeviceSampledProblem& problem, float* scores, StreamView stream);

}  // namespace sprocket::kernels::cuda

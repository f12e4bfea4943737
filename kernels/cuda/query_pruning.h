// BSA's query pruning on the device: kernels/query_pruning.h, the same rows.
//
// Similarities have the bits of the host's on processors with fused multiply-adds, so the same
// tokens are kept. Pointers are to device memory. Everything is asynchronous on `stream`, allocates
// nothing and throws CudaError when a launch is refused; a broken precondition is InternalError.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "base/stream.h"
#include "kernels/head_view.h"
#include "kernels/pruning_rule.h"

namespace sprocket::kernels::cuda {

// A PruningLayout, in device memory.
struct DevicePruningLayout {
  int query_blocks = 0;
  int64_t tokens = 0;
  int64_t kept_rows = 0;
  int largest_block = 0;                   // tokens
  const int64_t* token_offsets = nullptr;  // [query_blocks + 1]
  const int64_t* offsets = nullptr;        // [query_blocks + 1]
  const int32_t* positions = nullptr;      // [tokens, 3]
  const int32_t* centre = nullptr;         // [tokens]
  const int32_t* previous = nullptr;       // [tokens], or null
  const int32_t* window = nullptr;         // [tokens]
  const int32_t* keep = nullptr;           // [windows]
  const int32_t* keep_if_redundant = nullptr;
  PruningRecovery recovery = PruningRecovery::kNearestPosition;
  double redundancy_threshold = 0;
};

// What depends on the queries; the fields of QueryPruning.
struct DeviceQueryPruning {
  int32_t* rows = nullptr;    // [batch * heads * query_blocks]
  int32_t* kept = nullptr;    // [batch * heads, kept_rows]
  int32_t* source = nullptr;  // [batch * heads, tokens]
};

// q: [batch, tokens, heads, head_dim] of kF32, kBF16 or kF16. Overwrites all of `to`. A block may
// have as many tokens as 20 bytes each fit in shared memory: 5,000 in 99 KiB.
void prune_queries(HeadView<const void> q, DType dtype, const DevicePruningLayout& layout,
                   int batch, int heads, int head_dim, const DeviceQueryPruning& to,
                   StreamView stream);

// to[b, r, h, :] = from[b, index[b * heads + h][r], h, :] for r < rows, zeros where the index is
// negative. gather_queries with index = kept, recover_rows with index = source; recover_lse as
// rows of one element.
void gather_rows(HeadView<const void> from, DType dtype, const int32_t* index, int64_t rows,
                 int batch, int heads, int head_dim, HeadView<void> to, StreamView stream);

// means[b, h, i, :] = mean in fp32 over the rows in use of block i of the kept queries; zeros for
// an empty block.
void kept_means(HeadView<const void> kept, DType dtype, const DevicePruningLayout& layout,
                const DeviceQueryPruning& pruning, int batch, int heads, int head_dim, float* means,
                StreamView stream);

// dkept[r] = sum of dout over the tokens copied from r, in ascending order in fp32, rounded once;
// zeros in unused rows. dout and dkept have the same dtype.
void recover_rows_backward(HeadView<const void> dout, DType dtype,
                           const DevicePruningLayout& layout, const DeviceQueryPruning& pruning,
                           int batch, int heads, int head_dim, HeadView<void> dkept,
                           StreamView stream);

// dq[token of r] += dkept[r]
void scatter_query_gradients(HeadView<const float> dkept, const DevicePruningLayout& layout,
                             const DeviceQueryPruning& pruning, int batch, int heads, int head_dim,
                             HeadView<float> dq, StreamView stream);

}  // namespace sprocket::kernels::cuda

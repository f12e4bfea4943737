// Which tokens of the input a rank holds, and the ways between the input's order and storage order.
//
// The input holds the video's tokens in raster (t, h, w) order and the prefix behind them; a rank
// keeps its share of it in ascending places, and permutes it into block order for attention.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "parallel/comm/communicator.h"
#include "parallel/token_layout.h"

namespace sprocket::runtime {

struct RankTokens {
  std::vector<int64_t> places;    // in the input, ascending
  std::vector<int64_t> to_block;  // [i] which of `places` is token i of the rank in block order
  std::vector<int64_t> to_input;  // the inverse
};
RankTokens rank_tokens(const parallel::TokenLayout& layout, const parallel::ShardPlan& plan,
                       int rank);

// Token i of `result` becomes token order[i] of x; both [B, n, …], contiguous, of one type.
void permute_tokens(const at::Tensor& x, std::span<const int64_t> order, int threads,
                    const at::Tensor& result);

// The ranks' own [B, places, …], contiguous, to [B, tokens, …] in the input's order on rank 0;
// undefined on the others. Collective over `world`, whose ranks are those of `plan`.
at::Tensor gather_tokens(comm::Communicator& world, const parallel::TokenLayout& layout,
                         const parallel::ShardPlan& plan, const at::Tensor& own);

// counts[r] elements of every rank r, in rank order, on rank 0; empty on the others. Collective.
std::vector<uint8_t> gather_bytes(comm::Communicator& world, std::span<const uint8_t> own,
                                  std::span<const int64_t> counts);

}  // namespace sprocket::runtime

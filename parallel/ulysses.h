// Ulysses: trades sequence shards of all heads for the whole outer shard of some heads, and back.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "parallel/exchange_plan.h"

namespace sprocket::parallel {

class Ulysses {
 public:
  // rows[u]: tokens of member u; their order makes the outer shard. `group` must outlive this.
  Ulysses(comm::Communicator& group, std::vector<int64_t> rows);

  // [B, rows[self], H, D] -> [B, all rows, H / size, D] for each tensor; one message per peer.
  std::vector<at::Tensor> scatter_heads(const std::vector<at::Tensor>& x_BLHD) const;
  // The inverse movement, and the gradient of scatter_heads.
  std::vector<at::Tensor> gather_heads(const std::vector<at::Tensor>& x_BLHD) const;

 private:
  ExchangePlan plan(const at::Tensor& example, size_t tensors, int64_t heads_here) const;

  comm::Communicator& group_;
  std::vector<int64_t> rows_;
  int64_t all_rows_ = 0;
};

}  // namespace sprocket::parallel

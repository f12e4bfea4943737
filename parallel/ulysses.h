// Ulysses: trades sequence shards of all heads for the whole outer shard of some heads, and back.
//
// A rank's heads may be moved in several groups, so that one travels while another is worked on,
// and may be any of the model's: they are picked where the messages are packed and unpacked.
#pragma once

#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "parallel/exchange_plan.h"

namespace sprocket::parallel {

// Group `index` of `count` equal ones, of the heads of every member; one group where there is one
// member. order: [H] heads of the first member, of the second, …; empty: 0, 1, 2, ….
struct HeadGroup {
  int index = 0;
  int count = 1;
  std::span<const int> order = {};
};

class Ulysses {
 public:
  // rows[u]: tokens of member u; their order makes the outer shard. `group` must outlive this.
  Ulysses(comm::Communicator& group, std::vector<int64_t> rows);

  // Tensors under way. The work is the last member: it is settled before its buffers go.
  struct Movement {
    size_t tensors = 0;
    at::Tensor sent, received;
    std::vector<at::Tensor> unmoved;  // of a communicator of one
    ExchangePlan plan;
    comm::Work work;
  };

  // [B, rows[self], H, D] -> [B, all rows, H / size / groups, D] for each tensor; one message per
  // peer.
  Movement start_scatter(const std::vector<at::Tensor>& x_BLHD, const HeadGroup& group) const;
  std::vector<at::Tensor> finish_scatter(Movement& movement) const;
  // The inverse movement, and the gradient of the scatter. finish_gather fills the group's heads of
  // `to` [B, rows[self], H, D]; undefined ones are made first.
  Movement start_gather(const std::vector<at::Tensor>& x_BLHD) const;
  void finish_gather(Movement& movement, const HeadGroup& group, std::vector<at::Tensor>& to) const;

 private:
  ExchangePlan plan(const at::Tensor& example, size_t tensors, int64_t heads_here) const;

  comm::Communicator& group_;
  std::vector<int64_t> rows_;
  int64_t all_rows_ = 0;
};

}  // namespace sprocket::parallel

// All-gather: every rank receives all K and V; the gradients go back by the transposed plan and the
// owner sums them in rank order in the accumulator type.
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "parallel/attention/outer_strategy.h"
#include "parallel/exchange_plan.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

class AllGatherStrategy : public OuterStrategy {
 public:
  AllGatherStrategy(OuterShards shards, comm::Communicator& group, bool keep_remote_kv)
      : shards_(std::move(shards)),
        group_(group),
        timeline_(group.options().timeline),
        keep_remote_kv_(keep_remote_kv),
        local_map_(empty_map(shards_)),
        remote_map_(empty_map(shards_)) {
    for (int rank = 0; rank < shards_.ranks(); ++rank) {
      add_shard_blocks(shards_, rank, rank, rank == shards_.self ? local_map_ : remote_map_);
    }
  }

  std::unique_ptr<Memory> forward(const OuterCall& call, const at::Tensor& out_BLHD,
                                  const at::Tensor& lse_BHL) override {
    auto memory = std::make_unique<Gathered>();
    const at::Tensor own = packed(call);
    at::Tensor all;
    comm::Work moving = gather(call, own, all);
    {
      Timeline::Scope scope(timeline_, Activity::kCompute, "attention.local");
      forward_pass(call.query, shard_views(call, own, all), local_map_, out_BLHD, lse_BHL);
    }
    moving.wait_host();
    Timeline::Scope scope(timeline_, Activity::kCompute, "attention.remote");
    forward_pass(call.query, shard_views(call, own, all), remote_map_, out_BLHD, lse_BHL);
    if (keep_remote_kv_) memory->all = all;
    return memory;
  }

  void backward(const OuterCall& call, Memory& memory, const at::Tensor& dout_BLHD,
                const at::Tensor& lse_BHL, const at::Tensor& delta_BHL, const at::Tensor& dq_BLHD,
                const at::Tensor& dk_BLHD, const at::Tensor& dv_BLHD) override {
    at::Tensor all = static_cast<Gathered&>(memory).all;
    const at::Tensor own = packed(call);
    const ExchangePlan plan = movement(call);
    if (!all.defined()) gather(call, own, all).wait_host();

    at::Tensor d_all = at::zeros({plan.receive_count}, dk_BLHD.options());
    const auto kv = shard_views(call, own, all);
    const auto dkv = shard_views(call, {}, d_all);
    {
      Timeline::Scope scope(timeline_, Activity::kCompute, "attention.remote");
      backward_pass(call.query, kv, remote_map_, dout_BLHD, lse_BHL, delta_BHL, dq_BLHD, dkv);
    }
    // The gradients of remote rows travel in the compute type while the own rows are worked on. The
    // own part is not rounded: its slice of the sent buffer is ignored.
    const ExchangePlan back = transpose(plan);
    const at::Tensor sent = d_all.to(call.k_BLHD.scalar_type());
    const int ranks = shards_.ranks();
    std::vector<comm::Segment> receive;
    const int64_t own_elements = plan.send_count;
    for (int rank = 0; rank < ranks; ++rank)
      receive.push_back({rank, rank * own_elements, own_elements});
    at::Tensor contributions =
        at::empty({ranks, 2, dk_BLHD.size(0), dk_BLHD.size(1), dk_BLHD.size(2), dk_BLHD.size(3)},
                  call.k_BLHD.options());
    comm::Work moving =
        group_.exchange(buffer_of(sent), back.send, buffer_of(contributions), receive);
    {
      Timeline::Scope scope(timeline_, Activity::kCompute, "attention.local");
      backward_pass(call.query, kv, local_map_, dout_BLHD, lse_BHL, delta_BHL, dq_BLHD, dkv);
    }
    moving.wait_host();
    Timeline::Scope scope(timeline_, Activity::kCompute, "attention.sum");
    const KvTensors& own_gradient = dkv[shards_.self];
    for (int rank = 0; rank < ranks; ++rank) {
      const bool self = rank == shards_.self;
      dk_BLHD.add_(self ? own_gradient.k : contributions[rank][0]);
      dv_BLHD.add_(self ? own_gradient.v : contributions[rank][1]);
    }
  }

 private:
  struct Gathered : Memory {
    at::Tensor all;
  };

  static at::Tensor packed(const OuterCall& call) {
    at::Tensor own = at::empty(
        {2, call.k_BLHD.size(0), call.k_BLHD.size(1), call.k_BLHD.size(2), call.k_BLHD.size(3)},
        call.k_BLHD.options());
    own[0].copy_(call.k_BLHD);
    own[1].copy_(call.v_BLHD);
    return own;
  }

  ExchangePlan movement(const OuterCall& call) const {
    std::vector<int64_t> counts;
    for (int rank = 0; rank < shards_.ranks(); ++rank) {
      counts.push_back(2 * call.k_BLHD.size(0) * shards_.tokens(rank) * call.k_BLHD.size(2) *
                       call.k_BLHD.size(3));
    }
    return gather_plan(counts, shards_.self);
  }

  comm::Work gather(const OuterCall& call, const at::Tensor& own, at::Tensor& all) {
    const ExchangePlan plan = movement(call);
    all = at::empty({plan.receive_count}, call.k_BLHD.options());
    return group_.exchange(buffer_of(own), plan.send, buffer_of(all), plan.receive);
  }

  // Each rank's K and V in the gathered buffer; `own` replaces the own part while it is in flight.
  std::vector<KvTensors> shard_views(const OuterCall& call, const at::Tensor& own,
                                     const at::Tensor& all) const {
    const ExchangePlan plan = movement(call);
    std::vector<KvTensors> views;
    for (int rank = 0; rank < shards_.ranks(); ++rank) {
      const auto& segment = plan.receive[rank];
      at::Tensor kv = rank == shards_.self && own.defined()
                          ? own
                          : all.narrow(0, segment.offset, segment.count)
                                .view({2, call.k_BLHD.size(0), shards_.tokens(rank),
                                       call.k_BLHD.size(2), call.k_BLHD.size(3)});
      views.push_back({kv[0], kv[1]});
    }
    return views;
  }

  OuterShards shards_;
  comm::Communicator& group_;
  Timeline* timeline_;
  bool keep_remote_kv_;
  kernels::KvBlockMap local_map_, remote_map_;
};

}  // namespace

std::unique_ptr<OuterStrategy> make_all_gather_strategy(OuterShards shards,
                                                        comm::Communicator& group,
                                                        bool keep_remote_kv) {
  return std::make_unique<AllGatherStrategy>(std::move(shards), group, keep_remote_kv);
}

}  // namespace sprocket::parallel

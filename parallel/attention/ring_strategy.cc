// Ring: KV shards travel around the outer group; dK and dV travel with them in the accumulator type
// and arrive at their owner after a full turn, summed in the fixed order owner, owner + 1, ….
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "parallel/attention/outer_strategy.h"
#include "parallel/attention/pass_work.h"
#include "parallel/exchange_plan.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

class RingStrategy : public OuterStrategy {
 public:
  RingStrategy(OuterShards shards, const RankGroup& group, bool overlap)
      : shards_(std::move(shards)),
        group_(group.tensors),
        timeline_(group.host.options().timeline),
        overlap_(overlap) {
    for (int rank = 0; rank < shards_.ranks(); ++rank) {
      maps_.push_back(empty_map(shards_));
      add_shard_blocks(shards_, rank, 0, maps_.back());
    }
    add_replicated_blocks(shards_, 1, maps_[shards_.self]);
  }

  std::unique_ptr<Memory> forward(const OuterCall& call, PassOutput& output) override {
    travel(call, [&](int shard, const at::Tensor& kv) {
      Timeline::Scope scope(timeline_, Activity::kCompute, "attention.ring_step",
                            [&] { return forward_pass_work(call.query, maps_[shard]); });
      forward_pass(call.query, buffers(shard, kv, call.replicated), maps_[shard], output);
    });
    return std::make_unique<Memory>();
  }

  void backward(const OuterCall& call, Memory&, const OutputSide& output,
                const OuterGradients& gradients) override {
    const std::vector<int64_t> counts = shard_elements(call);
    const auto options = gradients.dk_BLHD.options();
    const StreamView stream = stream_of(gradients.dk_BLHD);
    // The sums of a shard follow its K and V one step behind: while this rank computes its own
    // contribution, the sum of those before it arrives.
    at::Tensor sum, former;
    comm::Work moving;
    int step = 0;
    travel(call, [&](int shard, const at::Tensor& kv) {
      at::Tensor dkv = shard_tensor(call, shard, options).zero_();
      {
        Timeline::Scope scope(timeline_, Activity::kCompute, "attention.ring_step",
                              [&] { return backward_pass_work(call.query, maps_[shard]); });
        backward_pass(call.query, buffers(shard, kv, call.replicated), maps_[shard], output,
                      gradients.dq_BLHD, buffers(shard, dkv, gradients.replicated));
      }
      moving.wait(stream);
      if (sum.defined()) {
        Timeline::Scope scope(timeline_, Activity::kCompute, "attention.sum",
                              [&] { return parallel::moving(dkv, dkv, sum); });
        dkv.add_(sum);
      }
      former = dkv;
      const ExchangePlan plan = ring_step_plan(counts, shards_.self, step++);
      sum = shard_tensor(call, shard_before(shard), options);
      moving = exchange_tensors(group_, plan, former, sum);
      if (!overlap_) moving.wait(stream);
    });
    moving.wait(stream);
    gradients.dk_BLHD.add_(sum[0]);
    gradients.dv_BLHD.add_(sum[1]);
  }

 private:
  int shard_before(int shard) const { return (shard + shards_.ranks() - 1) % shards_.ranks(); }

  // The replicated rows belong to the own shard's step.
  std::vector<KvTensors> buffers(int shard, const at::Tensor& kv,
                                 const KvTensors& replicated) const {
    std::vector<KvTensors> buffers{{kv[0], kv[1]}};
    if (shard == shards_.self && replicated.k.defined()) buffers.push_back(replicated);
    return buffers;
  }

  std::vector<int64_t> shard_elements(const OuterCall& call) const {
    std::vector<int64_t> counts;
    for (int rank = 0; rank < shards_.ranks(); ++rank) {
      counts.push_back(2 * call.k_BLHD.size(0) * shards_.tokens(rank) * call.k_BLHD.size(2) *
                       call.k_BLHD.size(3));
    }
    return counts;
  }

  at::Tensor shard_tensor(const OuterCall& call, int shard,
                          const at::TensorOptions& options) const {
    return at::empty(
        {2, call.k_BLHD.size(0), shards_.tokens(shard), call.k_BLHD.size(2), call.k_BLHD.size(3)},
        options);
  }

  // Calls use(shard, kv) for every shard, starting with the own one, while the next one arrives.
  template <class Use>
  void travel(const OuterCall& call, Use&& use) {
    const std::vector<int64_t> counts = shard_elements(call);
    const StreamView stream = stream_of(call.k_BLHD);
    at::Tensor kv = shard_tensor(call, shards_.self, call.k_BLHD.options());
    kv[0].copy_(call.k_BLHD);
    kv[1].copy_(call.v_BLHD);
    int shard = shards_.self;
    for (int step = 0; step < shards_.ranks(); ++step) {
      const bool last = step + 1 == shards_.ranks();
      at::Tensor arriving;
      comm::Work moving;
      if (!last) {
        const ExchangePlan plan = ring_step_plan(counts, shards_.self, step);
        arriving = shard_tensor(call, shard_before(shard), kv.options());
        moving = exchange_tensors(group_, plan, kv, arriving);
        if (!overlap_) moving.wait(stream);
      }
      use(shard, kv);
      moving.wait(stream);
      kv = arriving;
      shard = shard_before(shard);
    }
  }

  OuterShards shards_;
  comm::Communicator& group_;
  Timeline* timeline_;
  bool overlap_;
  std::vector<kernels::KvBlockMap> maps_;
};

}  // namespace

std::unique_ptr<OuterStrategy> make_ring_strategy(OuterShards shards, const RankGroup& group,
                                                  const StrategySpec& spec) {
  return std::make_unique<RingStrategy>(std::move(shards), group, spec.overlap);
}

}  // namespace sprocket::parallel

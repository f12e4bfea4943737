#include "parallel/attention/outer_strategy.h"
#include "parallel/attention/pass_work.h"

namespace sprocket::parallel {
namespace {

class LocalStrategy : public OuterStrategy {
 public:
  LocalStrategy(OuterShards shards, const RankGroup& group)
      : map_(empty_map(shards)), timeline_(group.host.options().timeline) {
    add_shard_blocks(shards, shards.self, 0, map_);
  }

  std::unique_ptr<Memory> forward(const OuterCall& call, PassOutput& output) override {
    Timeline::Scope scope(timeline_, Activity::kCompute, "attention.local",
                          [&] { return forward_pass_work(call.query, map_); });
    forward_pass(call.query, {{call.k_BLHD, call.v_BLHD}}, map_, output);
    return std::make_unique<Memory>();
  }

  void backward(const OuterCall& call, Memory&, const OutputSide& output,
                const OuterGradients& gradients) override {
    Timeline::Scope scope(timeline_, Activity::kCompute, "attention.local",
                          [&] { return backward_pass_work(call.query, map_); });
    backward_pass(call.query, {{call.k_BLHD, call.v_BLHD}}, map_, output, gradients.dq_BLHD,
                  {{gradients.dk_BLHD, gradients.dv_BLHD}});
  }

 private:
  kernels::KvBlockMap map_;
  Timeline* timeline_;
};

}  // namespace

std::unique_ptr<OuterStrategy> make_local_strategy(OuterShards shards, const RankGroup& group) {
  return std::make_unique<LocalStrategy>(std::move(shards), group);
}

}  // namespace sprocket::parallel

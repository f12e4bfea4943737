#include <ATen/ops/empty.h>

#include "parallel/attention/remote_keys.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

class GatheredKeys : public RemoteKeys {
 public:
  GatheredKeys(const OuterShards& shards, const OuterCall& call)
      : shards_(shards), like_(call.k_BLHD.sizes().vec()), map_(empty_map(shards)) {
    std::vector<int64_t> counts;
    for (int rank = 0; rank < shards.ranks(); ++rank) {
      counts.push_back(2 * like_[0] * shards.tokens(rank) * like_[2] * like_[3]);
      if (rank != shards.self) add_shard_blocks(shards, rank, rank, map_);
    }
    fetch_ = gather_plan(counts, shards.self);
    give_back_ = transpose(fetch_);
    // One part for every peer: contributions are kept apart until they are summed.
    give_back_.receive_count = 0;
    for (comm::Segment& segment : give_back_.receive) {
      segment.offset = give_back_.receive_count;
      give_back_.receive_count += segment.count;
    }
  }

  const ExchangePlan& fetch() const override { return fetch_; }
  const ExchangePlan& give_back() const override { return give_back_; }
  const kernels::KvBlockMap& map() const override { return map_; }

  at::Tensor pack(const OuterCall& call) const override {
    const at::Tensor own =
        at::empty({2, like_[0], like_[1], like_[2], like_[3]}, call.k_BLHD.options());
    own[0].copy_(call.k_BLHD);
    own[1].copy_(call.v_BLHD);
    return own.flatten();
  }

  std::vector<KvTensors> views(const at::Tensor& pool) const override {
    std::vector<KvTensors> views(shards_.ranks());
    for (int rank = 0; rank < shards_.ranks(); ++rank) {
      if (rank == shards_.self) continue;
      const at::Tensor kv = part(pool, fetch_.receive[rank], shards_.tokens(rank));
      views[rank] = {kv[0], kv[1]};
    }
    return views;
  }

  void add(int rank, const at::Tensor& contributions, const at::Tensor& dk_BLHD,
           const at::Tensor& dv_BLHD) const override {
    const at::Tensor kv = part(contributions, give_back_.receive[rank], like_[1]);
    dk_BLHD.add_(kv[0]);
    dv_BLHD.add_(kv[1]);
  }

 private:
  at::Tensor part(const at::Tensor& elements, const comm::Segment& segment, int64_t rows) const {
    return elements.narrow(0, segment.offset, segment.count)
        .view({2, like_[0], rows, like_[2], like_[3]});
  }

  const OuterShards& shards_;
  std::vector<int64_t> like_;  // shape of the own K
  kernels::KvBlockMap map_;
  ExchangePlan fetch_, give_back_;
};

}  // namespace

std::unique_ptr<RemoteKeys> make_gathered_keys(const OuterShards& shards, const OuterCall& call) {
  return std::make_unique<GatheredKeys>(shards, call);
}

}  // namespace sprocket::parallel

// Strategies that fetch rows of other ranks' K and V by one exchange: all of them, or per head only
// the blocks that a rank's selection lists.
//
// The rows travel while the own keys are attended to; a second pass continues over the fetched
// ones. The backward goes over the fetched rows first, so that their gradients travel back while
// the own keys are worked on; the owner sums contributions in rank order in the accumulator type.
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "parallel/attention/remote_keys.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

class FetchingStrategy : public OuterStrategy {
 public:
  FetchingStrategy(OuterShards shards, comm::Communicator& group, const StrategySpec& spec)
      : shards_(std::move(shards)),
        group_(group),
        timeline_(group.options().timeline),
        spec_(spec),
        own_map_(empty_map(shards_)) {
    add_shard_blocks(shards_, shards_.self, shards_.self, own_map_);
    add_replicated_blocks(shards_, shards_.ranks(), own_map_);
  }

  std::unique_ptr<Memory> forward(const OuterCall& call, const at::Tensor& out_BLHD,
                                  const at::Tensor& lse_BHL) override {
    auto memory = std::make_unique<Fetched>();
    memory->keys = keys_of(call);
    const RemoteKeys& keys = *memory->keys;
    Pool pool = fetch(call, keys);
    const auto pass = [&](const char* name, const kernels::KvBlockMap& map) {
      Timeline::Scope scope(timeline_, Activity::kCompute, name);
      forward_pass(call.query,
                   buffers(keys, pool.rows, {call.k_BLHD, call.v_BLHD}, call.replicated), map,
                   out_BLHD, lse_BHL);
    };
    if (spec_.single_pass) {
      pool.moving.wait_host();
      pass("attention.local", whole_map(keys));
    } else {
      if (!spec_.overlap) pool.moving.wait_host();
      pass("attention.local", own_map_);
      pool.moving.wait_host();
      pass("attention.remote", keys.map());
    }
    if (spec_.keep_remote_kv) memory->pool = pool.rows;
    return memory;
  }

  void backward(const OuterCall& call, Memory& memory, const at::Tensor& dout_BLHD,
                const at::Tensor& lse_BHL, const at::Tensor& delta_BHL,
                const OuterGradients& gradients) override {
    auto& fetched = static_cast<Fetched&>(memory);
    const RemoteKeys& keys = *fetched.keys;
    at::Tensor rows = fetched.pool;
    if (!rows.defined()) {
      Pool again = fetch(call, keys);
      again.moving.wait_host();
      rows = again.rows;
    }
    const at::Tensor &dk_BLHD = gradients.dk_BLHD, &dv_BLHD = gradients.dv_BLHD;
    const at::Tensor d_rows = at::zeros({keys.fetch().receive_count}, dk_BLHD.options());
    const at::Tensor own_dk = at::zeros_like(dk_BLHD), own_dv = at::zeros_like(dv_BLHD);
    const auto kv = buffers(keys, rows, {call.k_BLHD, call.v_BLHD}, call.replicated);
    const auto dkv = buffers(keys, d_rows, {own_dk, own_dv}, gradients.replicated);
    const auto pass = [&](const char* name, const kernels::KvBlockMap& map) {
      Timeline::Scope scope(timeline_, Activity::kCompute, name);
      backward_pass(call.query, kv, map, dout_BLHD, lse_BHL, delta_BHL, gradients.dq_BLHD, dkv);
    };

    if (spec_.single_pass) {
      pass("attention.local", whole_map(keys));
    } else {
      pass("attention.remote", keys.map());
    }
    const at::Tensor sent = spec_.wide_gradients ? d_rows : d_rows.to(call.k_BLHD.scalar_type());
    const at::Tensor contributions = at::empty({keys.give_back().receive_count}, sent.options());
    comm::Work moving = exchange(keys.give_back(), sent, contributions);
    if (!spec_.single_pass) {
      if (!spec_.overlap) moving.wait_host();
      pass("attention.local", own_map_);
    }
    moving.wait_host();

    Timeline::Scope scope(timeline_, Activity::kCompute, "attention.sum");
    for (int rank = 0; rank < shards_.ranks(); ++rank) {
      if (rank == shards_.self) {
        dk_BLHD.add_(own_dk);
        dv_BLHD.add_(own_dv);
      } else {
        keys.add(rank, contributions, dk_BLHD, dv_BLHD);
      }
    }
  }

 private:
  struct Fetched : Memory {
    std::unique_ptr<RemoteKeys> keys;
    at::Tensor pool;  // undefined: to be fetched again
  };

  // The work is the last member: it is settled before its buffers go.
  struct Pool {
    at::Tensor rows, sent;
    comm::Work moving;
  };

  std::unique_ptr<RemoteKeys> keys_of(const OuterCall& call) {
    if (spec_.outer == OuterStrategyKind::kAllGather) return make_gathered_keys(shards_, call);
    const std::vector<NeedBitmap> needs = gather_needs(*call.query.table);
    Timeline::Scope scope(timeline_, Activity::kCompute, "attention.plan");
    if (gathers_everything(shards_, needs, spec_.gather_above)) {
      return make_gathered_keys(shards_, call);
    }
    return make_selected_keys(shards_, plan_selected_exchange(shards_, needs, call.k_BLHD.size(3)),
                              call);
  }

  std::vector<NeedBitmap> gather_needs(const kernels::SegmentTable& table) {
    NeedBitmap own(int64_t{table.batch} * table.heads, table.kv_blocks);
    {
      Timeline::Scope scope(timeline_, Activity::kCompute, "attention.plan");
      own = needs_of(table);
    }
    const auto bytes = std::ssize(own.bytes);
    std::vector<uint8_t> all(bytes * shards_.ranks());
    const std::vector<int64_t> counts(shards_.ranks(), bytes);
    group_
        .all_gather(comm::Buffer::of(std::span<const uint8_t>(own.bytes)),
                    comm::Buffer::of(std::span<uint8_t>(all)), counts)
        .wait_host();
    std::vector<NeedBitmap> needs;
    for (int rank = 0; rank < shards_.ranks(); ++rank) {
      needs.push_back(NeedBitmap(own.batch_heads, own.blocks));
      needs.back().bytes.assign(all.begin() + rank * bytes, all.begin() + (rank + 1) * bytes);
    }
    return needs;
  }

  Pool fetch(const OuterCall& call, const RemoteKeys& keys) {
    Pool pool;
    {
      Timeline::Scope scope(timeline_, Activity::kCopy, "attention.pack");
      pool.sent = keys.pack(call);
    }
    pool.rows = at::empty({keys.fetch().receive_count}, call.k_BLHD.options());
    pool.moving = exchange(keys.fetch(), pool.sent, pool.rows);
    return pool;
  }

  comm::Work exchange(const ExchangePlan& plan, const at::Tensor& sent,
                      const at::Tensor& received) {
    return group_.exchange(buffer_of(sent), plan.send, buffer_of(received), plan.receive);
  }

  // Buffer r: the rows of rank r; behind them the replicated ones.
  std::vector<KvTensors> buffers(const RemoteKeys& keys, const at::Tensor& pool,
                                 const KvTensors& own, const KvTensors& replicated) const {
    std::vector<KvTensors> buffers = keys.views(pool);
    buffers[shards_.self] = own;
    if (replicated.k.defined()) buffers.push_back(replicated);
    return buffers;
  }

  // Own and fetched blocks.
  kernels::KvBlockMap whole_map(const RemoteKeys& keys) const {
    kernels::KvBlockMap map = keys.map();
    for (size_t i = 0; i < map.blocks.size(); ++i) {
      const kernels::KvBlock& own = own_map_.blocks[i % map.kv_blocks];
      if (own.rows > 0) map.blocks[i] = own;
    }
    return map;
  }

  OuterShards shards_;
  comm::Communicator& group_;
  Timeline* timeline_;
  StrategySpec spec_;
  kernels::KvBlockMap own_map_;
};

}  // namespace

std::unique_ptr<OuterStrategy> make_fetching_strategy(OuterShards shards, comm::Communicator& group,
                                                      const StrategySpec& spec) {
  return std::make_unique<FetchingStrategy>(std::move(shards), group, spec);
}

}  // namespace sprocket::parallel

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

#include "parallel/attention/pass_work.h"
#include "parallel/attention/remote_keys.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

class FetchingStrategy : public OuterStrategy {
 public:
  FetchingStrategy(OuterShards shards, const RankGroup& group, const StrategySpec& spec)
      : shards_(std::move(shards)),
        group_(group),
        timeline_(group.host.options().timeline),
        spec_(spec),
        own_map_(empty_map(shards_)) {
    add_shard_blocks(shards_, shards_.self, shards_.self, own_map_);
    add_replicated_blocks(shards_, shards_.ranks(), own_map_);
  }

  std::unique_ptr<Memory> forward(const OuterCall& call, PassOutput& output) override {
    auto memory = std::make_unique<Fetched>();
    const StreamView stream = stream_of(call.k_BLHD);
    memory->groups = groups_of(call);
    std::vector<Pool> pools;
    for (const Group& group : memory->groups) pools.push_back(fetch(call, *group.keys));
    const auto pass = [&](const char* name, size_t i, const kernels::KvBlockMap& map,
                          const std::optional<kernels::HeadRange>& heads) {
      Timeline::Scope scope(timeline_, Activity::kCompute, name,
                            [&] { return forward_pass_work(call.query, map, heads); });
      forward_pass(call.query,
                   buffers(*memory->groups[i].keys, pools[i].rows, {call.k_BLHD, call.v_BLHD},
                           call.replicated),
                   map, output, heads);
    };
    if (spec_.single_pass) {
      pools[0].moving.wait(stream);
      pass("attention.local", 0, whole_map(*memory->groups[0].keys), {});
    } else {
      if (!spec_.overlap) pools[0].moving.wait(stream);
      pass("attention.local", 0, own_map_, {});
      for (size_t i = 0; i < pools.size(); ++i) {
        pools[i].moving.wait(stream);
        pass("attention.remote", i, memory->groups[i].keys->map(), memory->groups[i].heads);
      }
    }
    if (spec_.keep_remote_kv) {
      for (size_t i = 0; i < pools.size(); ++i) memory->groups[i].pool = pools[i].rows;
    }
    return memory;
  }

  void backward(const OuterCall& call, Memory& memory, const OutputSide& output,
                const OuterGradients& gradients) override {
    auto& fetched = static_cast<Fetched&>(memory);
    const StreamView stream = stream_of(call.k_BLHD);
    const at::Tensor &dk_BLHD = gradients.dk_BLHD, &dv_BLHD = gradients.dv_BLHD;
    at::Tensor own_dk, own_dv, d_rows;
    {
      Timeline::Scope scope(timeline_, Activity::kCompute, "attention.rows");
      own_dk = at::zeros_like(dk_BLHD);
      own_dv = at::zeros_like(dv_BLHD);
    }
    const auto pass = [&](const char* name, const Group& group, const kernels::KvBlockMap& map,
                          const std::optional<kernels::HeadRange>& heads) {
      Timeline::Scope scope(timeline_, Activity::kCompute, name,
                            [&] { return backward_pass_work(call.query, map, heads); });
      const RemoteKeys& keys = *group.keys;
      backward_pass(call.query,
                    buffers(keys, group.pool, {call.k_BLHD, call.v_BLHD}, call.replicated), map,
                    output, gradients.dq_BLHD,
                    buffers(keys, d_rows, {own_dk, own_dv}, gradients.replicated), heads);
    };

    std::vector<Pool> again;
    for (const Group& group : fetched.groups) {
      if (!group.pool.defined()) again.push_back(fetch(call, *group.keys));
    }
    std::vector<Return> returns;
    for (size_t i = 0; i < fetched.groups.size(); ++i) {
      Group& group = fetched.groups[i];
      if (!group.pool.defined()) {
        again[i].moving.wait(stream);
        group.pool = again[i].rows;
      }
      {
        Timeline::Scope scope(timeline_, Activity::kCompute, "attention.rows");
        d_rows = at::zeros({group.keys->fetch().receive_count}, dk_BLHD.options());
      }
      if (spec_.single_pass) {
        pass("attention.local", group, whole_map(*group.keys), {});
      } else {
        pass("attention.remote", group, group.keys->map(), group.heads);
      }
      returns.push_back(give_back(*group.keys, d_rows, call.k_BLHD.scalar_type()));
    }
    if (!spec_.single_pass) {
      if (!spec_.overlap) returns[0].moving.wait(stream);
      pass("attention.local", fetched.groups.back(), own_map_, {});
    }
    for (Return& part : returns) part.moving.wait(stream);

    Timeline::Scope scope(timeline_, Activity::kCompute, "attention.sum", [&] {
      return moving(own_dk, dk_BLHD, dk_BLHD, own_dv, dv_BLHD, dv_BLHD);
    });
    for (int rank = 0; rank < shards_.ranks(); ++rank) {
      if (rank == shards_.self) {
        dk_BLHD.add_(own_dk);
        dv_BLHD.add_(own_dv);
      } else {
        for (size_t i = 0; i < returns.size(); ++i) {
          fetched.groups[i].keys->add(rank, returns[i].contributions, dk_BLHD, dv_BLHD);
        }
      }
    }
  }

 private:
  // What one exchange fetches.
  struct Group {
    std::unique_ptr<RemoteKeys> keys;
    std::optional<kernels::HeadRange> heads;  // of batch x head; null: all
    at::Tensor pool;                          // undefined: to be fetched, or fetched again
  };
  struct Fetched : Memory {
    std::vector<Group> groups;
  };

  // The work is the last member: it is settled before its buffers go.
  struct Pool {
    at::Tensor rows, sent;
    comm::Work moving;
  };
  struct Return {
    at::Tensor contributions, sent;
    comm::Work moving;
  };

  std::vector<Group> groups_of(const OuterCall& call) {
    std::vector<Group> groups;
    if (spec_.outer == OuterStrategyKind::kAllGather) {
      groups.push_back({make_gathered_keys(shards_, call), {}, {}});
      return groups;
    }
    const std::vector<NeedBitmap> needs = gather_needs(*call.query.table);
    Timeline::Scope scope(timeline_, Activity::kCompute, "attention.plan");
    if (gathers_everything(shards_, needs, spec_.gather_above)) {
      groups.push_back({make_gathered_keys(shards_, call), {}, {}});
      return groups;
    }
    for (const kernels::HeadRange& heads : fetch_groups(spec_, needs[0].batch_heads)) {
      SelectedPlan plan = plan_selected_exchange(shards_, needs, heads, call.k_BLHD.size(3));
      groups.push_back({make_selected_keys(shards_, std::move(plan), call), heads, {}});
    }
    return groups;
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
    group_.host
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
      Timeline::Scope scope(timeline_, Activity::kCopy, "attention.pack", [&] {
        const auto bytes = static_cast<double>(call.k_BLHD.element_size());
        return Work{0, 2 * bytes * static_cast<double>(keys.fetch().send_count)};
      });
      pool.sent = keys.pack(call);
    }
    pool.rows = at::empty({keys.fetch().receive_count}, call.k_BLHD.options());
    pool.moving = exchange_tensors(group_.tensors, keys.fetch(), pool.sent, pool.rows);
    return pool;
  }

  Return give_back(const RemoteKeys& keys, const at::Tensor& d_rows, at::ScalarType dtype) {
    Return part;
    {
      Timeline::Scope scope(timeline_, Activity::kCopy, "attention.pack");
      part.sent = spec_.wide_gradients ? d_rows : d_rows.to(dtype);
    }
    part.contributions = at::empty({keys.give_back().receive_count}, part.sent.options());
    part.moving = exchange_tensors(group_.tensors, keys.give_back(), part.sent, part.contributions);
    return part;
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
  const RankGroup group_;
  Timeline* timeline_;
  StrategySpec spec_;
  kernels::KvBlockMap own_map_;
};

}  // namespace

std::unique_ptr<OuterStrategy> make_fetching_strategy(OuterShards shards, const RankGroup& group,
                                                      const StrategySpec& spec) {
  return std::make_unique<FetchingStrategy>(std::move(shards), group, spec);
}

}  // namespace sprocket::parallel

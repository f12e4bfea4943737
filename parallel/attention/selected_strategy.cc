// Selected exchange: only the KV blocks that a rank's selection lists, per head, cross the network.
//
// Need bitmaps are gathered first, so both sides of every message derive the same counts and order.
// The blocks travel while the local pass runs; the remote pass continues it. The backward is the
// transposed plan: gradients of the received blocks go back and the owner sums them in rank order.
#include <cstring>
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "parallel/attention/outer_strategy.h"
#include "parallel/attention/selected_plan.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

class SelectedStrategy : public OuterStrategy {
 public:
  SelectedStrategy(OuterShards shards, comm::Communicator& group, bool keep_remote_kv)
      : shards_(std::move(shards)),
        group_(group),
        timeline_(group.options().timeline),
        keep_remote_kv_(keep_remote_kv),
        local_map_(empty_map(shards_)) {
    add_shard_blocks(shards_, shards_.self, 0, local_map_);
  }

  std::unique_ptr<Memory> forward(const OuterCall& call, const at::Tensor& out_BLHD,
                                  const at::Tensor& lse_BHL) override {
    auto memory = std::make_unique<Selected>();
    memory->plan = plan_selected_exchange(shards_, gather_needs(*call.query.table), head_dim(call));
    memory->map = pool_map(call, memory->plan);
    at::Tensor pool, sent;
    comm::Work moving = fetch(call, memory->plan, sent, pool);
    {
      Timeline::Scope scope(timeline_, Activity::kCompute, "attention.local");
      forward_pass(call.query, {{call.k_BLHD, call.v_BLHD}}, local_map_, out_BLHD, lse_BHL);
    }
    moving.wait_host();
    Timeline::Scope scope(timeline_, Activity::kCompute, "attention.remote");
    forward_pass(call.query, pool_views(call, memory->plan, pool), memory->map, out_BLHD, lse_BHL);
    if (keep_remote_kv_) memory->pool = pool;
    return memory;
  }

  void backward(const OuterCall& call, Memory& memory, const at::Tensor& dout_BLHD,
                const at::Tensor& lse_BHL, const at::Tensor& delta_BHL, const at::Tensor& dq_BLHD,
                const at::Tensor& dk_BLHD, const at::Tensor& dv_BLHD) override {
    auto& selected = static_cast<Selected&>(memory);
    const SelectedPlan& plan = selected.plan;
    at::Tensor own_dk = at::zeros_like(dk_BLHD), own_dv = at::zeros_like(dv_BLHD);
    const auto local_pass = [&] {
      Timeline::Scope scope(timeline_, Activity::kCompute, "attention.local");
      backward_pass(call.query, {{call.k_BLHD, call.v_BLHD}}, local_map_, dout_BLHD, lse_BHL,
                    delta_BHL, dq_BLHD, {{own_dk, own_dv}});
    };

    // The order local, remote of dq's sum is the same whether the pool was kept or is fetched
    // again.
    at::Tensor pool = selected.pool;
    if (pool.defined()) {
      local_pass();
    } else {
      at::Tensor sent;
      comm::Work moving = fetch(call, plan, sent, pool);
      local_pass();
      moving.wait_host();
    }
    at::Tensor d_pool = at::zeros({plan.exchange.receive_count}, dk_BLHD.options());
    {
      Timeline::Scope scope(timeline_, Activity::kCompute, "attention.remote");
      backward_pass(call.query, pool_views(call, plan, pool), selected.map, dout_BLHD, lse_BHL,
                    delta_BHL, dq_BLHD, pool_views(call, plan, d_pool));
    }
    const ExchangePlan back = transpose(plan.exchange);
    const at::Tensor sent = d_pool.to(call.k_BLHD.scalar_type());
    at::Tensor contributions = at::empty({back.receive_count}, call.k_BLHD.options());
    group_.exchange(buffer_of(sent), back.send, buffer_of(contributions), back.receive).wait_host();

    Timeline::Scope scope(timeline_, Activity::kCompute, "attention.sum");
    for (int rank = 0; rank < shards_.ranks(); ++rank) {
      if (rank == shards_.self) {
        dk_BLHD.add_(own_dk);
        dv_BLHD.add_(own_dv);
      } else {
        add_rows(plan, rank, contributions, dk_BLHD, dv_BLHD);
      }
    }
  }

 private:
  struct Selected : Memory {
    SelectedPlan plan;
    kernels::KvBlockMap map;
    at::Tensor pool;
  };

  static int64_t head_dim(const OuterCall& call) { return call.k_BLHD.size(3); }

  std::vector<NeedBitmap> gather_needs(const kernels::SegmentTable& table) {
    const NeedBitmap own = needs_of(table);
    const int64_t bytes = static_cast<int64_t>(own.bytes.size());
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

  // Buffer r holds the message of rank r.
  kernels::KvBlockMap pool_map(const OuterCall& call, const SelectedPlan& plan) const {
    kernels::KvBlockMap map;
    map.kv_blocks = call.query.table->kv_blocks;
    map.per_head = true;
    map.blocks.resize(static_cast<size_t>(call.query.table->batch) * call.query.table->heads *
                      map.kv_blocks);
    for (int rank = 0; rank < shards_.ranks(); ++rank) {
      for (const auto& entry : plan.receive[rank]) {
        map.blocks[entry.batch_head * map.kv_blocks + entry.block] = {
            rank, entry.rows, entry.first_row, shards_.block_bias(entry.block)};
      }
    }
    return map;
  }

  std::vector<KvTensors> pool_views(const OuterCall& call, const SelectedPlan& plan,
                                    const at::Tensor& pool) const {
    const int64_t batch = call.k_BLHD.size(0), heads = call.k_BLHD.size(2), dim = head_dim(call);
    std::vector<KvTensors> views;
    for (int rank = 0; rank < shards_.ranks(); ++rank) {
      const auto& segment = plan.exchange.receive[rank];
      const int64_t rows = plan.receive_rows[rank];
      const at::Tensor kv =
          pool.narrow(0, segment.offset, segment.count).view({2, 1, rows, 1, dim});
      views.push_back(
          {kv[0].expand({batch, rows, heads, dim}), kv[1].expand({batch, rows, heads, dim})});
    }
    return views;
  }

  // `sent` is the packed message buffer; it must live until the work completes.
  comm::Work fetch(const OuterCall& call, const SelectedPlan& plan, at::Tensor& sent,
                   at::Tensor& pool) {
    sent = at::empty({plan.exchange.send_count}, call.k_BLHD.options());
    pool = at::empty({plan.exchange.receive_count}, call.k_BLHD.options());
    {
      Timeline::Scope scope(timeline_, Activity::kCopy, "attention.pack");
      dispatch_compute_type(call.k_BLHD.scalar_type(), [&](auto zero) {
        using T = decltype(zero);
        for (int rank = 0; rank < shards_.ranks(); ++rank) {
          T* k = static_cast<T*>(sent.data_ptr()) + plan.exchange.send[rank].offset;
          pack_rows<T>(plan.send[rank], call.k_BLHD, k);
          pack_rows<T>(plan.send[rank], call.v_BLHD, k + plan.send_rows[rank] * head_dim(call));
        }
      });
    }
    return group_.exchange(buffer_of(sent), plan.exchange.send, buffer_of(pool),
                           plan.exchange.receive);
  }

  template <class T>
  void pack_rows(const std::vector<SelectedEntry>& entries, const at::Tensor& x_BLHD,
                 T* message) const {
    const auto view = const_head_view<T>(x_BLHD);
    const int64_t heads = x_BLHD.size(2), dim = x_BLHD.size(3);
    for (const auto& entry : entries) {
      const int64_t first = shards_.block_offsets[entry.block] - shards_.first_token(shards_.self);
      for (int row = 0; row < entry.rows; ++row) {
        std::memcpy(message + (entry.first_row + row) * dim,
                    view.row(entry.batch_head / heads, first + row, entry.batch_head % heads),
                    dim * sizeof(T));
      }
    }
  }

  void add_rows(const SelectedPlan& plan, int rank, const at::Tensor& contributions,
                const at::Tensor& dk_BLHD, const at::Tensor& dv_BLHD) const {
    dispatch_compute_type(contributions.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      const int64_t dim = dk_BLHD.size(3);
      const T* k =
          static_cast<const T*>(contributions.data_ptr()) + plan.exchange.send[rank].offset;
      add_message<T>(plan.send[rank], k, dk_BLHD);
      add_message<T>(plan.send[rank], k + plan.send_rows[rank] * dim, dv_BLHD);
    });
  }

  template <class T>
  void add_message(const std::vector<SelectedEntry>& entries, const T* message,
                   const at::Tensor& dx_BLHD) const {
    using A = kernels::Accumulator<T>;
    const auto view = head_view<A>(dx_BLHD);
    const int64_t heads = dx_BLHD.size(2), dim = dx_BLHD.size(3);
    for (const auto& entry : entries) {
      const int64_t first = shards_.block_offsets[entry.block] - shards_.first_token(shards_.self);
      for (int row = 0; row < entry.rows; ++row) {
        A* sum = view.row(entry.batch_head / heads, first + row, entry.batch_head % heads);
        const T* part = message + (entry.first_row + row) * dim;
        for (int64_t d = 0; d < dim; ++d) sum[d] += static_cast<A>(part[d]);
      }
    }
  }

  OuterShards shards_;
  comm::Communicator& group_;
  Timeline* timeline_;
  bool keep_remote_kv_;
  kernels::KvBlockMap local_map_;
};

}  // namespace

std::unique_ptr<OuterStrategy> make_selected_strategy(OuterShards shards, comm::Communicator& group,
                                                      bool keep_remote_kv) {
  return std::make_unique<SelectedStrategy>(std::move(shards), group, keep_remote_kv);
}

}  // namespace sprocket::parallel

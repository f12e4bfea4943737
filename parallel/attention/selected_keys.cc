#include <ATen/ops/empty.h>

#include "kernels/row_runs.h"
#include "parallel/attention/packed_rows_device.h"
#include "parallel/attention/remote_keys.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

class SelectedKeys : public RemoteKeys {
 public:
  SelectedKeys(const OuterShards& shards, SelectedPlan plan, const OuterCall& call)
      : plan_(std::move(plan)),
        batch_(call.k_BLHD.size(0)),
        heads_(call.k_BLHD.size(2)),
        dim_(call.k_BLHD.size(3)),
        threads_(call.query.threads),
        self_(shards.self),
        give_back_(transpose(plan_.exchange)) {
    map_.kv_blocks = call.query.table->kv_blocks;
    map_.per_head = true;
    map_.blocks.resize(static_cast<size_t>(batch_ * heads_) * map_.kv_blocks);
    sent_.resize(plan_.send.size());
    for (int rank = 0; rank < shards.ranks(); ++rank) {
      for (const SelectedEntry& entry : plan_.receive[rank]) {
        map_.blocks[entry.batch_head * map_.kv_blocks + entry.block] = {
            rank, entry.rows, entry.first_row, shards.block_bias(entry.block)};
      }
      for (const SelectedEntry& entry : plan_.send[rank]) {
        sent_[rank].push_back({static_cast<int32_t>(entry.batch_head / heads_),
                               static_cast<int32_t>(entry.batch_head % heads_),
                               shards.block_offsets[entry.block] - shards.first_token(self_),
                               entry.rows, entry.first_row});
      }
    }
  }

  const ExchangePlan& fetch() const override { return plan_.exchange; }
  const ExchangePlan& give_back() const override { return give_back_; }
  const kernels::KvBlockMap& map() const override { return map_; }

  at::Tensor pack(const OuterCall& call) const override {
    at::Tensor packed = at::empty({plan_.exchange.send_count}, call.k_BLHD.options());
    if (!packed.is_cpu()) {
      for (size_t rank = 0; rank < sent_.size(); ++rank) {
        const int64_t k = plan_.exchange.send[rank].offset, v = k + plan_.send_rows[rank] * dim_;
        device::pack_rows(call.k_BLHD, sent_[rank], packed, k);
        device::pack_rows(call.v_BLHD, sent_[rank], packed, v);
      }
      return packed;
    }
    dispatch_compute_type(packed.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      for (size_t rank = 0; rank < sent_.size(); ++rank) {
        T* const k = static_cast<T*>(packed.data_ptr()) + plan_.exchange.send[rank].offset;
        T* const v = k + plan_.send_rows[rank] * dim_;
        kernels::pack_rows<T>(const_head_view<T>(call.k_BLHD), sent_[rank], dim(), k, threads_);
        kernels::pack_rows<T>(const_head_view<T>(call.v_BLHD), sent_[rank], dim(), v, threads_);
      }
    });
    return packed;
  }

  std::vector<KvTensors> views(const at::Tensor& pool) const override {
    std::vector<KvTensors> views(sent_.size());
    for (int rank = 0; rank < static_cast<int>(views.size()); ++rank) {
      if (rank == self_) continue;
      const comm::Segment& segment = plan_.exchange.receive[rank];
      const int64_t rows = plan_.receive_rows[rank];
      const at::Tensor kv =
          pool.narrow(0, segment.offset, segment.count).view({2, 1, rows, 1, dim_});
      views[rank] = {kv[0].expand({batch_, rows, heads_, dim_}),
                     kv[1].expand({batch_, rows, heads_, dim_})};
    }
    return views;
  }

  void add(int rank, const at::Tensor& contributions, const at::Tensor& dk_BLHD,
           const at::Tensor& dv_BLHD) const override {
    if (!contributions.is_cpu()) {
      const int64_t k = plan_.exchange.send[rank].offset, v = k + plan_.send_rows[rank] * dim_;
      device::add_packed_rows(contributions, k, sent_[rank], dk_BLHD);
      device::add_packed_rows(contributions, v, sent_[rank], dv_BLHD);
      return;
    }
    dispatch_compute_type(contributions.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      using A = kernels::Accumulator<T>;
      const T* k =
          static_cast<const T*>(contributions.data_ptr()) + plan_.exchange.send[rank].offset;
      const T* v = k + plan_.send_rows[rank] * dim_;
      kernels::add_packed_rows<T>(k, sent_[rank], dim(), head_view<A>(dk_BLHD), threads_);
      kernels::add_packed_rows<T>(v, sent_[rank], dim(), head_view<A>(dv_BLHD), threads_);
    });
  }

 private:
  int dim() const { return static_cast<int>(dim_); }

  SelectedPlan plan_;
  int64_t batch_, heads_, dim_;
  int threads_;
  int self_;
  ExchangePlan give_back_;
  kernels::KvBlockMap map_;
  std::vector<std::vector<kernels::RowRun>> sent_;  // by peer: the own rows it fetches
};

}  // namespace

std::unique_ptr<RemoteKeys> make_selected_keys(const OuterShards& shards, SelectedPlan plan,
                                               const OuterCall& call) {
  return std::make_unique<SelectedKeys>(shards, std::move(plan), call);
}

}  // namespace sprocket::parallel

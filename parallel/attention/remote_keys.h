// Which rows of other ranks' K and V one call fetches, and how they lie in its messages.
//
// The fetched rows are one buffer of elements, the *pool*, made by one exchange. The backward gives
// the gradients of the pool back by another. Everything is derived without communication from what
// all ranks know, so both sides of every message agree.
#pragma once

#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "parallel/attention/outer_strategy.h"
#include "parallel/attention/selected_plan.h"
#include "parallel/exchange_plan.h"

namespace sprocket::parallel {

class RemoteKeys {
 public:
  virtual ~RemoteKeys() = default;

  // From the packed rows of the owner to the pool.
  virtual const ExchangePlan& fetch() const = 0;
  // From the gradients of the pool to the contributions to the owner's rows.
  virtual const ExchangePlan& give_back() const = 0;
  // Where the fetched blocks are: in buffer r what rank r sent. The own blocks are absent.
  virtual const kernels::KvBlockMap& map() const = 0;

  // The own rows that others fetch, as fetch() sends them.
  virtual at::Tensor pack(const OuterCall& call) const = 0;
  // One pair for every rank; the own one is undefined. Shares the pool's memory.
  virtual std::vector<KvTensors> views(const at::Tensor& pool) const = 0;
  // dk and dv (accumulators of the own rows) += what `rank` contributed.
  virtual void add(int rank, const at::Tensor& contributions, const at::Tensor& dk_BLHD,
                   const at::Tensor& dv_BLHD) const = 0;
};

// All rows of all ranks. A message holds K, then V, of [B, L_rank, H, D].
std::unique_ptr<RemoteKeys> make_gathered_keys(const OuterShards& shards, const OuterCall& call);

// The rows of a plan, which is that of this call's needs.
std::unique_ptr<RemoteKeys> make_selected_keys(const OuterShards& shards, SelectedPlan plan,
                                               const OuterCall& call);

}  // namespace sprocket::parallel

#include "parallel/attention/pruned_queries.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

at::Tensor rows_like(const at::Tensor& x_BLHD, int64_t rows) {
  return at::empty({x_BLHD.size(0), rows, x_BLHD.size(2), x_BLHD.size(3)}, x_BLHD.options());
}

int size(const at::Tensor& x, int dim) { return static_cast<int>(x.size(dim)); }

}  // namespace

kernels::QueryPruning prune_queries(const at::Tensor& q_BLHD,
                                    const std::vector<int64_t>& block_offsets,
                                    const std::vector<kernels::TokenPosition>& positions,
                                    const kernels::PruningSpec& spec, int first_exempt_blocks,
                                    int threads) {
  if (!q_BLHD.is_cpu()) {
    return device::prune_queries(q_BLHD, block_offsets, positions, spec, first_exempt_blocks);
  }
  kernels::QueryPruning pruning;
  dispatch_compute_type(q_BLHD.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    pruning = kernels::prune_queries<T>(const_head_view<T>(q_BLHD), block_offsets, positions,
                                        size(q_BLHD, 0), size(q_BLHD, 2), size(q_BLHD, 3), spec,
                                        first_exempt_blocks, threads);
  });
  return pruning;
}

PrunedQueries::PrunedQueries(std::shared_ptr<const kernels::QueryPruning> pruning,
                             const at::Device& device, int threads)
    : pruning_(std::move(pruning)),
      threads_(threads),
      keeps_everything_(pruning_->keeps_everything()) {
  if (!device.is_cpu()) on_device_ = device::upload_pruning(*pruning_, device);
}

at::Tensor PrunedQueries::gather(const at::Tensor& q_BLHD) const {
  if (keeps_everything_) return q_BLHD;
  const at::Tensor kept = rows_like(q_BLHD, pruning_->kept_rows());
  if (!kept.is_cpu()) {
    device::gather_rows(q_BLHD, on_device_.kept, kept);
    return kept;
  }
  dispatch_compute_type(kept.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    kernels::gather_queries<T>(const_head_view<T>(q_BLHD), *pruning_, size(kept, 3),
                               head_view<T>(kept), threads_);
  });
  return kept;
}

at::Tensor PrunedQueries::means(const at::Tensor& kept_BLHD) const {
  if (!kept_BLHD.is_cpu()) return device::kept_means(kept_BLHD, on_device_);
  at::Tensor means =
      at::empty({kept_BLHD.size(0), kept_BLHD.size(2), pruning_->query_blocks(), kept_BLHD.size(3)},
                kept_BLHD.options().dtype(accumulator_type(kept_BLHD.scalar_type())));
  dispatch_compute_type(kept_BLHD.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    kernels::kept_means<T>(const_head_view<T>(kept_BLHD), *pruning_, size(kept_BLHD, 3),
                           static_cast<kernels::Accumulator<T>*>(means.data_ptr()), threads_);
  });
  return means;
}

void PrunedQueries::prune(QuerySide& query) const {
  if (keeps_everything_) return;
  query.q_BLHD = gather(query.q_BLHD);
  query.query_offsets = pruning_->offsets;
  query.query_rows = pruning_->rows;
}

at::Tensor PrunedQueries::recover(const at::Tensor& kept_BLHD) const {
  if (keeps_everything_) return kept_BLHD;
  const at::Tensor out = rows_like(kept_BLHD, pruning_->tokens());
  if (!out.is_cpu()) {
    device::gather_rows(kept_BLHD, on_device_.source, out);
    return out;
  }
  dispatch_compute_type(out.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    kernels::recover_rows<T>(const_head_view<T>(kept_BLHD), *pruning_, size(out, 3),
                             head_view<T>(out), threads_);
  });
  return out;
}

at::Tensor PrunedQueries::recover_lse(const at::Tensor& kept_BHL) const {
  if (keeps_everything_) return kept_BHL;
  const at::Tensor lse =
      at::empty({kept_BHL.size(0), kept_BHL.size(1), pruning_->tokens()}, kept_BHL.options());
  if (!lse.is_cpu()) {
    // As rows of one element, [B, rows, H, 1].
    device::gather_rows(kept_BHL.transpose(1, 2).unsqueeze(-1), on_device_.source,
                        lse.transpose(1, 2).unsqueeze(-1));
    return lse;
  }
  dispatch_accumulator_type(lse.scalar_type(), [&](auto zero) {
    using A = decltype(zero);
    kernels::recover_lse<A>(static_cast<const A*>(kept_BHL.data_ptr()), *pruning_,
                            static_cast<A*>(lse.data_ptr()), threads_);
  });
  return lse;
}

at::Tensor PrunedQueries::recover_backward(const at::Tensor& dout_BLHD) const {
  if (keeps_everything_) return dout_BLHD;
  const at::Tensor dkept = rows_like(dout_BLHD, pruning_->kept_rows());
  if (!dkept.is_cpu()) {
    device::recover_rows_backward(dout_BLHD, on_device_, dkept);
    return dkept;
  }
  dispatch_compute_type(dkept.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    kernels::recover_rows_backward<T>(const_head_view<T>(dout_BLHD), *pruning_, size(dkept, 3),
                                      head_view<T>(dkept), threads_);
  });
  return dkept;
}

at::Tensor PrunedQueries::scatter_gradients(const at::Tensor& dkept_BLHD) const {
  if (keeps_everything_) return dkept_BLHD;
  const at::Tensor dq =
      at::zeros({dkept_BLHD.size(0), pruning_->tokens(), dkept_BLHD.size(2), dkept_BLHD.size(3)},
                dkept_BLHD.options());
  if (!dq.is_cpu()) {
    device::scatter_query_gradients(dkept_BLHD, on_device_, dq);
    return dq;
  }
  dispatch_accumulator_type(dq.scalar_type(), [&](auto zero) {
    using A = decltype(zero);
    kernels::scatter_query_gradients<A>(const_head_view<A>(dkept_BLHD), *pruning_, size(dq, 3),
                                        head_view<A>(dq), threads_);
  });
  return dq;
}

}  // namespace sprocket::parallel

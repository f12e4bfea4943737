#include "parallel/attention/pruned_queries.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

at::Tensor rows_like(const at::Tensor& x_BLHD, int64_t rows) {
  return at::empty({x_BLHD.size(0), rows, x_BLHD.size(2), x_BLHD.size(3)}, x_BLHD.options());
}

int head_dim(const at::Tensor& x_BLHD) { return static_cast<int>(x_BLHD.size(3)); }

}  // namespace

void prune(const kernels::QueryPruning& pruning, QuerySide& query) {
  if (pruning.keeps_everything()) return;
  const at::Tensor kept = rows_like(query.q_BLHD, pruning.kept_rows());
  dispatch_compute_type(kept.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    kernels::gather_queries<T>(const_head_view<T>(query.q_BLHD), pruning, head_dim(kept),
                               head_view<T>(kept), query.threads);
  });
  query.q_BLHD = kept;
  query.query_offsets = pruning.offsets;
  query.query_rows = pruning.rows;
}

at::Tensor recover(const kernels::QueryPruning& pruning, const at::Tensor& kept_BLHD, int threads) {
  if (pruning.keeps_everything()) return kept_BLHD;
  const at::Tensor out = rows_like(kept_BLHD, pruning.tokens());
  dispatch_compute_type(out.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    kernels::recover_rows<T>(const_head_view<T>(kept_BLHD), pruning, head_dim(out),
                             head_view<T>(out), threads);
  });
  return out;
}

at::Tensor recover_lse(const kernels::QueryPruning& pruning, const at::Tensor& kept_BHL,
                       int threads) {
  if (pruning.keeps_everything()) return kept_BHL;
  const at::Tensor lse =
      at::empty({kept_BHL.size(0), kept_BHL.size(1), pruning.tokens()}, kept_BHL.options());
  dispatch_accumulator_type(lse.scalar_type(), [&](auto zero) {
    using A = decltype(zero);
    kernels::recover_lse<A>(static_cast<const A*>(kept_BHL.data_ptr()), pruning,
                            static_cast<A*>(lse.data_ptr()), threads);
  });
  return lse;
}

at::Tensor recover_backward(const kernels::QueryPruning& pruning, const at::Tensor& dout_BLHD,
                            int threads) {
  if (pruning.keeps_everything()) return dout_BLHD;
  const at::Tensor dkept = rows_like(dout_BLHD, pruning.kept_rows());
  dispatch_compute_type(dkept.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    kernels::recover_rows_backward<T>(const_head_view<T>(dout_BLHD), pruning, head_dim(dkept),
                                      head_view<T>(dkept), threads);
  });
  return dkept;
}

at::Tensor scatter_gradients(const kernels::QueryPruning& pruning, const at::Tensor& dkept_BLHD,
                             int threads) {
  if (pruning.keeps_everything()) return dkept_BLHD;
  const at::Tensor dq =
      at::zeros({dkept_BLHD.size(0), pruning.tokens(), dkept_BLHD.size(2), dkept_BLHD.size(3)},
                dkept_BLHD.options());
  dispatch_accumulator_type(dq.scalar_type(), [&](auto zero) {
    using A = decltype(zero);
    kernels::scatter_query_gradients<A>(const_head_view<A>(dkept_BLHD), pruning, head_dim(dq),
                                        head_view<A>(dq), threads);
  });
  return dq;
}

}  // namespace sprocket::parallel

#include "parallel/attention/coarse_branch.h"

#include <ATen/ops/clone.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "kernels/block_pooling.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

at::Tensor pool(const at::Tensor& x_BLHD, const std::vector<int64_t>& offsets, int threads) {
  at::Tensor pooled = at::empty(
      {x_BLHD.size(0), x_BLHD.size(2), static_cast<int64_t>(offsets.size()) - 1, x_BLHD.size(3)},
      x_BLHD.options().dtype(accumulator_type(x_BLHD.scalar_type())));
  dispatch_compute_type(x_BLHD.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using A = kernels::Accumulator<T>;
    kernels::pool_blocks<T>(const_head_view<T>(x_BLHD), offsets, static_cast<int>(x_BLHD.size(0)),
                            static_cast<int>(x_BLHD.size(2)), static_cast<int>(x_BLHD.size(3)),
                            static_cast<A*>(pooled.data_ptr()), threads);
  });
  return pooled;
}

// Elements that rank r contributes to the gathered means.
std::vector<int64_t> summary_counts(const OuterShards& shards, const at::Tensor& pooled) {
  std::vector<int64_t> counts;
  for (int rank = 0; rank < shards.ranks(); ++rank) {
    const int64_t blocks = shards.blocks[rank + 1] - shards.blocks[rank];
    counts.push_back(2 * pooled.size(0) * pooled.size(1) * blocks * pooled.size(3));
  }
  return counts;
}

// Rank r's part [2, B, H, blocks of r, D] of a buffer in rank order.
at::Tensor part_of(const at::Tensor& buffer, const OuterShards& shards, int rank,
                   const at::Tensor& pooled, const std::vector<int64_t>& counts) {
  int64_t offset = 0;
  for (int r = 0; r < rank; ++r) offset += counts[r];
  return buffer.narrow(0, offset, counts[rank])
      .view({2, pooled.size(0), pooled.size(1), shards.blocks[rank + 1] - shards.blocks[rank],
             pooled.size(3)});
}

template <class Body>
void dispatch_accumulator(const at::Tensor& x, Body&& body) {
  if (x.scalar_type() == at::kDouble) {
    body(double{});
  } else {
    body(float{});
  }
}

template <class A>
const A* data(const at::Tensor& x) {
  return static_cast<const A*>(x.data_ptr());
}

template <class A>
A* mutable_data(const at::Tensor& x) {
  return static_cast<A*>(x.data_ptr());
}

struct Shape {
  int batch_heads, query_blocks, kv_blocks, head_dim;
};

Shape shape_of(const CoarseSummaries& s) {
  return {static_cast<int>(s.q_own.size(0) * s.q_own.size(1)), static_cast<int>(s.q_own.size(2)),
          static_cast<int>(s.k_all.size(2)), static_cast<int>(s.k_all.size(3))};
}

}  // namespace

CoarseSummaries gather_summaries(const OuterShards& shards, comm::Communicator& group,
                                 const at::Tensor& q_BLHD, const at::Tensor& k_BLHD,
                                 const at::Tensor& v_BLHD, int threads) {
  Timeline* timeline = group.options().timeline;
  const std::vector<int64_t> offsets = shards.own_offsets();
  CoarseSummaries summaries;
  at::Tensor k_own, v_own;
  {
    Timeline::Scope scope(timeline, Activity::kCompute, "attention.pool");
    summaries.q_own = pool(q_BLHD, offsets, threads);
    k_own = pool(k_BLHD, offsets, threads);
    v_own = pool(v_BLHD, offsets, threads);
  }
  if (shards.ranks() == 1) {
    summaries.k_all = k_own;
    summaries.v_all = v_own;
    return summaries;
  }
  const std::vector<int64_t> counts = summary_counts(shards, k_own);
  at::Tensor own = at::empty({counts[shards.self]}, k_own.options());
  const at::Tensor own_part =
      own.view({2, k_own.size(0), k_own.size(1), k_own.size(2), k_own.size(3)});
  own_part[0].copy_(k_own);
  own_part[1].copy_(v_own);
  const int64_t blocks = static_cast<int64_t>(shards.block_offsets.size()) - 1;
  at::Tensor all =
      at::empty({2 * k_own.size(0) * k_own.size(1) * blocks * k_own.size(3)}, k_own.options());
  group.all_gather(buffer_of(own), buffer_of(all), counts).wait_host();

  summaries.k_all =
      at::empty({k_own.size(0), k_own.size(1), blocks, k_own.size(3)}, k_own.options());
  summaries.v_all = at::empty_like(summaries.k_all);
  for (int rank = 0; rank < shards.ranks(); ++rank) {
    const at::Tensor part = part_of(all, shards, rank, k_own, counts);
    const int64_t first = shards.blocks[rank], count = part.size(3);
    summaries.k_all.narrow(2, first, count).copy_(part[0]);
    summaries.v_all.narrow(2, first, count).copy_(part[1]);
  }
  return summaries;
}

CoarseScores coarse_scores(const CoarseSummaries& summaries, double scale, int threads) {
  CoarseScores result;
  result.scores = at::empty({summaries.q_own.size(0), summaries.q_own.size(1),
                             summaries.q_own.size(2), summaries.k_all.size(2)},
                            summaries.q_own.options());
  const auto [batch_heads, query_blocks, kv_blocks, head_dim] = shape_of(summaries);
  dispatch_accumulator(result.scores, [&, bh = batch_heads, nq = query_blocks, nk = kv_blocks,
                                       dim = head_dim](auto zero) {
    using A = decltype(zero);
    kernels::coarse_scores<A>(data<A>(summaries.q_own), data<A>(summaries.k_all), bh, nq, nk, dim,
                              scale, mutable_data<A>(result.scores), threads);
    result.probabilities = result.scores.clone();
    kernels::coarse_softmax<A>(mutable_data<A>(result.probabilities), static_cast<int64_t>(bh) * nq,
                               nk, threads);
  });
  return result;
}

at::Tensor coarse_output(const CoarseSummaries& summaries, const at::Tensor& probabilities,
                         int threads) {
  at::Tensor out = at::empty_like(summaries.q_own);
  const auto [batch_heads, query_blocks, kv_blocks, head_dim] = shape_of(summaries);
  dispatch_accumulator(
      out, [&, bh = batch_heads, nq = query_blocks, nk = kv_blocks, dim = head_dim](auto zero) {
        using A = decltype(zero);
        kernels::coarse_output<A>(data<A>(probabilities), data<A>(summaries.v_all), bh, nq, nk, dim,
                                  mutable_data<A>(out), threads);
      });
  return out;
}

void add_coarse_gradients(const OuterShards& shards, comm::Communicator& group,
                          const CoarseSummaries& summaries, const at::Tensor& dcoarse, double scale,
                          const at::Tensor& dq_BLHD, const at::Tensor& dk_BLHD,
                          const at::Tensor& dv_BLHD, int threads) {
  Timeline* timeline = group.options().timeline;
  at::Tensor dq_own = at::empty_like(summaries.q_own);
  at::Tensor dk_all = at::empty_like(summaries.k_all), dv_all = at::empty_like(summaries.v_all);
  {
    Timeline::Scope scope(timeline, Activity::kCompute, "attention.coarse");
    const at::Tensor probabilities = coarse_scores(summaries, scale, threads).probabilities;
    const auto [batch_heads, query_blocks, kv_blocks, head_dim] = shape_of(summaries);
    dispatch_accumulator(dq_own, [&, bh = batch_heads, nq = query_blocks, nk = kv_blocks,
                                  dim = head_dim](auto zero) {
      using A = decltype(zero);
      kernels::coarse_backward<A>(data<A>(summaries.q_own), data<A>(summaries.k_all),
                                  data<A>(summaries.v_all), data<A>(probabilities),
                                  data<A>(dcoarse), bh, nq, nk, dim, scale, mutable_data<A>(dq_own),
                                  mutable_data<A>(dk_all), mutable_data<A>(dv_all), threads);
    });
  }
  at::Tensor dk_own = dk_all, dv_own = dv_all;
  if (shards.ranks() > 1) {
    const std::vector<int64_t> counts = summary_counts(shards, dk_all);
    at::Tensor all = at::empty({dk_all.numel() * 2}, dk_all.options());
    for (int rank = 0; rank < shards.ranks(); ++rank) {
      const at::Tensor part = part_of(all, shards, rank, dk_all, counts);
      part[0].copy_(dk_all.narrow(2, shards.blocks[rank], part.size(3)));
      part[1].copy_(dv_all.narrow(2, shards.blocks[rank], part.size(3)));
    }
    at::Tensor own = at::empty({counts[shards.self]}, dk_all.options());
    group.reduce_scatter(buffer_of(all), buffer_of(own), counts).wait_host();
    own = own.view({2, dk_all.size(0), dk_all.size(1),
                    shards.blocks[shards.self + 1] - shards.blocks[shards.self], dk_all.size(3)});
    dk_own = own[0];
    dv_own = own[1];
  }
  Timeline::Scope scope(timeline, Activity::kCompute, "attention.pool");
  const std::vector<int64_t> offsets = shards.own_offsets();
  dispatch_accumulator(dq_BLHD, [&](auto zero) {
    using A = decltype(zero);
    for (const auto& [pooled, tokens] :
         {std::pair{dq_own, dq_BLHD}, {dk_own, dk_BLHD}, {dv_own, dv_BLHD}}) {
      kernels::add_pooling_gradient<A>(data<A>(pooled), offsets, static_cast<int>(tokens.size(0)),
                                       static_cast<int>(tokens.size(2)),
                                       static_cast<int>(tokens.size(3)), head_view<A>(tokens),
                                       threads);
    }
  });
}

}  // namespace sprocket::parallel

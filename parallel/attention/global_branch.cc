#include "parallel/attention/global_branch.h"

#include <algorithm>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "parallel/attention/block_summaries.h"
#include "parallel/attention/pass_work.h"
#include "parallel/device/host_copy.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

// Rows of a segment: a tile of the kernel.
constexpr int kSegmentGroups = 64;

int size(const at::Tensor& x, int dim) { return static_cast<int>(x.size(dim)); }

// The groups of a share on a device: their own tokens as blocks of rows, and what part of a group
// these are. A partial mean of kernels/global_tokens.h is the mean of the own tokens times this.
struct OwnGroups {
  std::vector<int64_t> offsets;
  at::Tensor parts_G11;  // fp32
};
OwnGroups own_groups(const kernels::GlobalTokens& tokens, const GlobalShare& own,
                     const at::Device& device) {
  OwnGroups groups{{0}, {}};
  std::vector<float> parts;
  for (int64_t i = 0; i < own.groups.count; ++i) {
    const int64_t group = own.groups.first + i;
    const int64_t end = std::min((group + 1) * tokens.group_tokens, own.first_token + own.tokens);
    groups.offsets.push_back(end - own.first_token);
    parts.push_back(static_cast<float>(groups.offsets[i + 1] - groups.offsets[i]) /
                    static_cast<float>(tokens.tokens_of(group)));
  }
  groups.parts_G11 = floats_on(parts, device).view({own.groups.count, 1, 1});
  return groups;
}

}  // namespace

kernels::GlobalTokens make_global_tokens(const TokenLayout& layout, int width, bool by_block) {
  const std::span<const int64_t> video =
      std::span(layout.block_offsets).subspan(layout.prefix_blocks());
  return kernels::make_global_tokens(video, layout.prefix_blocks(), width, kSegmentGroups,
                                     by_block);
}

GlobalShare global_share(const TokenLayout& layout, const OuterShards& blocks,
                         const kernels::GlobalTokens& tokens, int rank) {
  const int64_t prefix = layout.prefix_tokens();
  const int64_t first = std::max(blocks.first_token(rank), prefix) - prefix;
  const int64_t last = std::max(blocks.first_token(rank + 1), prefix) - prefix;
  return {first, last - first, kernels::groups_of(tokens, first, last - first)};
}

GlobalBranch::GlobalBranch(const MethodContext& context, int width, bool by_block)
    : context_(context), tokens_(make_global_tokens(context.layout, width, by_block)) {
  map_.kv_blocks = static_cast<int>(tokens_.segments.size());
  for (const kernels::GlobalSegment& segment : tokens_.segments) {
    map_.blocks.push_back({0, segment.groups, segment.first_group, segment.bias});
  }
}

kernels::SegmentTable GlobalBranch::table(const kernels::SegmentTable& selected,
                                          bool exclude_selected) const {
  return kernels::global_table(selected, tokens_, exclude_selected, context_.threads);
}

std::vector<int64_t> GlobalBranch::counts(const at::Tensor& example) const {
  std::vector<int64_t> counts;
  for (int rank = 0; rank < context_.blocks.ranks(); ++rank) {
    counts.push_back(2 * example.size(0) * share_of(rank).groups.count * example.size(2) *
                     example.size(3));
  }
  return counts;
}

// Rank's [2, B, its groups, H, D] in a buffer that starts with the part of first_rank.
at::Tensor GlobalBranch::part(const at::Tensor& buffer, int rank, int first_rank,
                              const at::Tensor& example) const {
  const std::vector<int64_t> sizes = counts(example);
  int64_t offset = 0;
  for (int r = first_rank; r < rank; ++r) offset += sizes[r];
  return buffer.narrow(0, offset, sizes[rank])
      .view({2, example.size(0), share_of(rank).groups.count, example.size(2), example.size(3)});
}

at::Tensor GlobalBranch::video_rows(const at::Tensor& x_BLHD) const {
  const int64_t tokens = share_of(context_.blocks.self).tokens;
  return x_BLHD.narrow(1, x_BLHD.size(1) - tokens, tokens);
}

void GlobalBranch::gather(const at::Tensor& k_BLHD, const at::Tensor& v_BLHD) {
  const GlobalShare own = share_of(context_.blocks.self);
  const auto options = k_BLHD.options().dtype(accumulator_type(k_BLHD.scalar_type()));
  const std::vector<int64_t> sizes = counts(k_BLHD);
  at::Tensor sent = at::empty({sizes[context_.blocks.self]}, options);
  {
    Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.pool",
                          [&] { return moving(k_BLHD, v_BLHD); });
    const at::Tensor partial = part(sent, context_.blocks.self, context_.blocks.self, k_BLHD);
    for (int i = 0; i < 2; ++i) {
      const at::Tensor rows = video_rows(i == 0 ? k_BLHD : v_BLHD);
      if (!rows.is_cpu()) {
        const OwnGroups groups = own_groups(tokens_, own, rows.device());
        const at::Tensor means_BHGD = block_means(rows, groups.offsets, context_.threads);
        partial[i].copy_(means_BHGD.transpose(1, 2) * groups.parts_G11);
        continue;
      }
      dispatch_compute_type(rows.scalar_type(), [&](auto zero) {
        using T = decltype(zero);
        kernels::partial_group_means<T>(const_head_view<T>(rows), tokens_, own.first_token,
                                        own.tokens, size(rows, 0), size(rows, 2), size(rows, 3),
                                        head_view<kernels::Accumulator<T>>(partial[i]),
                                        context_.threads);
      });
    }
  }
  at::Tensor received = sent;
  if (context_.blocks.ranks() > 1) {
    int64_t total = 0;
    for (const int64_t count : sizes) total += count;
    received = at::empty({total}, options);
    gather_tensors(context_.group.tensors, sent, received, sizes);
  }
  const at::Tensor all =
      at::zeros({2, k_BLHD.size(0), tokens_.groups(), k_BLHD.size(2), k_BLHD.size(3)}, options);
  for (int rank = 0; rank < context_.blocks.ranks(); ++rank) {
    const kernels::GroupRange groups = share_of(rank).groups;
    all.narrow(2, groups.first, groups.count).add_(part(received, rank, 0, k_BLHD));
  }
  k_ = all[0].to(k_BLHD.scalar_type());
  v_ = all[1].to(k_BLHD.scalar_type());
}

QuerySide GlobalBranch::query_side(
    const QuerySide& query, const std::shared_ptr<const kernels::SegmentTable>& table) const {
  QuerySide side = query;
  side.table = table;
  attach_device_form(side);
  return side;
}

void GlobalBranch::attend(const QuerySide& query,
                          const std::shared_ptr<const kernels::SegmentTable>& table,
                          PassOutput& output) {
  const QuerySide side = query_side(query, table);
  Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.global",
                        [&] { return forward_pass_work(side, map_); });
  forward_pass(side, {{k_, v_}}, map_, output);
}

void GlobalBranch::add_gradients(const QuerySide& query,
                                 const std::shared_ptr<const kernels::SegmentTable>& table,
                                 const OutputSide& output, ShardGradients& gradients) {
  const at::Tensor d_all =
      at::zeros({2, k_.size(0), k_.size(1), k_.size(2), k_.size(3)}, gradients.dk.options());
  {
    const QuerySide side = query_side(query, table);
    Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.global",
                          [&] { return backward_pass_work(side, map_); });
    backward_pass(side, {{k_, v_}}, map_, output, gradients.dq, {{d_all[0], d_all[1]}});
  }
  const std::vector<int64_t> sizes = counts(k_);
  int64_t total = 0;
  for (const int64_t count : sizes) total += count;
  at::Tensor sent = at::empty({total}, gradients.dk.options());
  for (int rank = 0; rank < context_.blocks.ranks(); ++rank) {
    const kernels::GroupRange groups = share_of(rank).groups;
    part(sent, rank, 0, k_).copy_(d_all.narrow(2, groups.first, groups.count));
  }
  at::Tensor received = sent;
  if (context_.blocks.ranks() > 1) {
    received = at::empty({sizes[context_.blocks.self]}, gradients.dk.options());
    reduce_scatter_tensors(context_.group.tensors, sent, received, sizes);
  }
  Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.pool",
                        [&] { return moving(gradients.dk, gradients.dv); });
  const GlobalShare own = share_of(context_.blocks.self);
  const at::Tensor d_own = part(received, context_.blocks.self, context_.blocks.self, k_);
  for (int i = 0; i < 2; ++i) {
    const at::Tensor dx = video_rows(i == 0 ? gradients.dk : gradients.dv);
    if (!dx.is_cpu()) {
      const OwnGroups groups = own_groups(tokens_, own, dx.device());
      add_block_mean_gradients((d_own[i] * groups.parts_G11).transpose(1, 2), groups.offsets, dx,
                               context_.threads);
      continue;
    }
    dispatch_accumulator_type(dx.scalar_type(), [&](auto zero) {
      using A = decltype(zero);
      kernels::add_group_gradient<A>(const_head_view<A>(d_own[i]), tokens_, own.first_token,
                                     own.tokens, size(dx, 0), size(dx, 2), size(dx, 3),
                                     head_view<A>(dx), context_.threads);
    });
  }
}

}  // namespace sprocket::parallel

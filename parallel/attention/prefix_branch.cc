#include "parallel/attention/prefix_branch.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "parallel/attention/pass_work.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Parts of one softmax, in order: out [B, rows, H, D], lse [B, rows, H], -inf without keys.
struct Part {
  at::Tensor out, lse;
};

Part merged(const std::vector<Part>& parts) {
  at::Tensor maximum = parts[0].lse;
  for (const Part& part : parts) maximum = maximum.maximum(part.lse);
  const at::Tensor reference = maximum.masked_fill(maximum == -kInfinity, 0);
  at::Tensor sum, out;
  for (const Part& part : parts) {
    const at::Tensor weight = (part.lse - reference).exp();
    const at::Tensor weighted = part.out * weight.unsqueeze(-1);
    sum = sum.defined() ? sum + weight : weight;
    out = out.defined() ? out + weighted : weighted;
  }
  return {out / sum.masked_fill(sum == 0, 1).unsqueeze(-1), reference + sum.log()};
}

}  // namespace

std::vector<int64_t> prefix_rows(const TokenLayout& layout, const OuterShards& blocks) {
  std::vector<int64_t> rows;
  for (int rank = 0; rank < blocks.ranks(); ++rank) {
    const int64_t first = blocks.first_token(rank),
                  end = std::min(blocks.first_token(rank + 1), layout.prefix_tokens());
    rows.push_back(std::max<int64_t>(end - first, 0));
  }
  return rows;
}

std::shared_ptr<const kernels::SegmentTable> without_prefix_queries(
    const std::shared_ptr<const kernels::SegmentTable>& table, int prefix_query_blocks) {
  if (prefix_query_blocks == 0) return table;
  auto rest = std::make_shared<kernels::SegmentTable>(kernels::SegmentTable{
      table->batch, table->heads, table->query_blocks, table->kv_blocks, {0}, {}});
  for (int64_t row = 0; row < table->rows(); ++row) {
    if (row % table->query_blocks >= prefix_query_blocks) {
      rest->kv_block.insert(rest->kv_block.end(), table->kv_block.begin() + table->row_offsets[row],
                            table->kv_block.begin() + table->row_offsets[row + 1]);
    }
    rest->row_offsets.push_back(std::ssize(rest->kv_block));
  }
  return rest;
}

PrefixBranch::PrefixBranch(const TokenLayout& layout, const OuterShards& blocks,
                           const KeyShards& keys, const RankGroup& group, bool merges)
    : blocks_(blocks),
      group_(group.tensors),
      timeline_(group.host.options().timeline),
      self_(blocks.self),
      merges_(merges),
      rows_(prefix_rows(layout, blocks)),
      first_(rows_.size() + 1),
      query_offsets_(layout.block_offsets.begin(),
                     layout.block_offsets.begin() + layout.prefix_blocks() + 1),
      map_(empty_map(keys.segments)),
      segments_(map_.kv_blocks) {
  std::partial_sum(rows_.begin(), rows_.end(), first_.begin() + 1);
  add_shard_blocks(keys.segments, self_, 0, map_);
  const auto list = [&](int first_block, int last_block) {
    for (int block = first_block; block < last_block; ++block) {
      const kernels::SegmentRange range = keys.whole.segments_of(block, 1);
      for (int i = 0; i < range.count; ++i) listed_.push_back(range.first + i);
    }
  };
  // The prefix's own keys are counted once, by the first rank.
  if (self_ == 0) {
    add_replicated_blocks(keys.segments, 1, map_);
    list(0, layout.prefix_blocks());
  }
  list(std::max<int>(blocks.blocks[self_], layout.prefix_blocks()),
       std::max<int>(blocks.blocks[self_ + 1], layout.prefix_blocks()));
}

std::vector<at::Tensor> PrefixBranch::gather_rows(const std::vector<at::Tensor>& own) const {
  const auto count = std::ssize(own);
  const at::IntArrayRef sizes = own[0].sizes();
  const int64_t batch = sizes[0];
  const int64_t rest =
      std::accumulate(sizes.begin() + 2, sizes.end(), int64_t{1}, std::multiplies<>());
  const auto part = [&](const at::Tensor& buffer, int rank, int64_t first) {
    std::vector<int64_t> shape = own[0].sizes().vec();
    shape[1] = rows_[rank];
    shape.insert(shape.begin(), count);
    return buffer.narrow(0, first * count * batch * rest, rows_[rank] * count * batch * rest)
        .view(shape);
  };
  std::vector<int64_t> counts;
  for (const int64_t rows : rows_) counts.push_back(rows * count * batch * rest);
  const at::Tensor sent = at::empty({counts[self_]}, own[0].options());
  const at::Tensor all =
      at::empty({std::accumulate(counts.begin(), counts.end(), int64_t{0})}, own[0].options());
  for (int i = 0; i < count; ++i) part(sent, self_, 0)[i].copy_(own[i].narrow(1, 0, own_rows()));
  gather_tensors(group_, sent, all, counts);
  std::vector<at::Tensor> gathered;
  for (int i = 0; i < count; ++i) {
    std::vector<at::Tensor> parts;
    for (int rank = 0; rank < blocks_.ranks(); ++rank) {
      parts.push_back(part(all, rank, first_[rank])[i]);
    }
    gathered.push_back(at::cat(parts, 1));
  }
  return gathered;
}

void PrefixBranch::gather(const at::Tensor& q_BLHD, const at::Tensor& k_BLHD,
                          const at::Tensor& v_BLHD) {
  if (merges_) {
    const std::vector<at::Tensor> all = gather_rows({q_BLHD, k_BLHD, v_BLHD});
    q_ = all[0];
    k_ = all[1];
    v_ = all[2];
  } else {
    const std::vector<at::Tensor> all = gather_rows({k_BLHD, v_BLHD});
    k_ = all[0];
    v_ = all[1];
  }
}

QuerySide PrefixBranch::query_side(const QuerySide& like) const {
  auto table = std::make_shared<kernels::SegmentTable>();
  table->batch = static_cast<int>(q_.size(0));
  table->heads = static_cast<int>(q_.size(2));
  table->query_blocks = static_cast<int>(query_offsets_.size()) - 1;
  table->kv_blocks = segments_;
  table->row_offsets = {0};
  for (int64_t row = 0; row < table->rows(); ++row) {
    table->kv_block.insert(table->kv_block.end(), listed_.begin(), listed_.end());
    table->row_offsets.push_back(std::ssize(table->kv_block));
  }
  QuerySide side{q_, query_offsets_, table, {}, like.scale, like.threads, like.progress};
  attach_device_form(side);
  return side;
}

ExchangePlan PrefixBranch::to_owners(int64_t per_row) const {
  ExchangePlan plan;
  for (int rank = 0; rank < blocks_.ranks(); ++rank) {
    const bool self = rank == self_;
    plan.send.push_back({rank, first_[rank] * per_row, self ? 0 : rows_[rank] * per_row});
    plan.receive.push_back({rank, plan.receive_count, self ? 0 : own_rows() * per_row});
    plan.receive_count += plan.receive.back().count;
  }
  plan.send_count = first_.back() * per_row;
  return plan;
}

std::vector<at::Tensor> PrefixBranch::received(const at::Tensor& message, const ExchangePlan& plan,
                                               const at::Tensor& own) const {
  std::vector<at::Tensor> parts;
  for (int rank = 0; rank < blocks_.ranks(); ++rank) {
    std::vector<int64_t> shape = own.sizes().vec();
    shape[0] = own_rows();
    const comm::Segment& segment = plan.receive[rank];
    parts.push_back(rank == self_ ? own.narrow(0, first_[rank], own_rows())
                                  : message.narrow(0, segment.offset, segment.count).view(shape));
  }
  return parts;
}

void PrefixBranch::start_forward(const QuerySide& like, const KvTensors& video) {
  const int64_t batch = q_.size(0), heads = q_.size(2), dim = q_.size(3);
  PassOutput output = empty_output(q_);
  {
    const QuerySide query = query_side(like);
    Timeline::Scope scope(timeline_, Activity::kCompute, "attention.prefix",
                          [&] { return forward_pass_work(query, map_); });
    forward_pass(query, {video, {k_, v_}}, map_, output);
  }
  // [rows, B, H, D + 1]: the rows of an owner lie together.
  partial_ = at::cat({output.out_BLHD, output.lse_BHL.transpose(1, 2).unsqueeze(-1)}, 3)
                 .transpose(0, 1)
                 .contiguous();
  const ExchangePlan plan = to_owners(batch * heads * (dim + 1));
  arriving_ = at::empty({plan.receive_count}, partial_.options());
  moving_ = exchange_tensors(group_, plan, partial_, arriving_);
}

void PrefixBranch::finish_forward(PassOutput& output) {
  moving_.wait(stream_of(output.out_BLHD));
  if (own_rows() == 0) return;
  output.untouched = false;
  const at::Tensor own_out = output.out_BLHD.narrow(1, 0, own_rows()),
                   own_lse = output.lse_BHL.narrow(2, 0, own_rows());
  const int64_t dim = own_out.size(3);
  const ExchangePlan plan = to_owners(partial_[0].numel());
  // What a method attended to before comes first.
  std::vector<Part> parts{{own_out, own_lse.transpose(1, 2)}};
  for (const at::Tensor& message : received(arriving_, plan, partial_)) {
    const at::Tensor part = message.transpose(0, 1);
    parts.push_back({part.narrow(3, 0, dim), part.select(3, dim)});
  }
  const Part whole = merged(parts);
  own_out.copy_(whole.out);
  own_lse.copy_(whole.lse.transpose(1, 2));
  partial_.reset();
  arriving_.reset();
}

void PrefixBranch::backward(const QuerySide& like, const KvTensors& video, const OutputSide& output,
                            const KvTensors& dvideo, const KvTensors& dprefix) {
  // Without the output itself, the largest of these messages: there are few such rows.
  OutputSide all;
  all.dout_BLHD = gather_rows({output.dout_BLHD})[0];
  const std::vector<at::Tensor> rows =
      gather_rows({output.lse_BHL.transpose(1, 2), output.delta_BHL.transpose(1, 2)});
  all.lse_BHL = rows[0].transpose(1, 2).contiguous();
  all.delta_BHL = rows[1].transpose(1, 2).contiguous();
  dq_ = at::zeros(q_.sizes(), all.lse_BHL.options());
  const QuerySide query = query_side(like);
  Timeline::Scope scope(timeline_, Activity::kCompute, "attention.prefix",
                        [&] { return backward_pass_work(query, map_); });
  backward_pass(query, {video, {k_, v_}}, map_, all, dq_, {dvideo, dprefix});
}

void PrefixBranch::give_back(const KvTensors& dprefix, const at::Tensor& dq_BLHD,
                             const at::Tensor& dk_BLHD, const at::Tensor& dv_BLHD) {
  std::vector<at::Tensor> parts{dprefix.k, dprefix.v};
  std::vector<at::Tensor> sums{dk_BLHD, dv_BLHD};
  if (merges_) {
    parts.push_back(dq_);
    sums.push_back(dq_BLHD);
  }
  // [rows, B, H, D] of each.
  const int64_t dim = dk_BLHD.size(3);
  const at::Tensor sent = at::cat(parts, 3).transpose(0, 1).contiguous();
  const ExchangePlan plan = to_owners(sent.numel() / std::max<int64_t>(sent.size(0), 1));
  const at::Tensor arriving = at::empty({plan.receive_count}, sent.options());
  exchange_tensors(group_, plan, sent, arriving).wait(stream_of(sent));
  dq_.reset();
  if (own_rows() == 0) return;
  Timeline::Scope scope(timeline_, Activity::kCompute, "attention.sum");
  for (const at::Tensor& message : received(arriving, plan, sent)) {
    const at::Tensor part = message.transpose(0, 1);
    for (size_t i = 0; i < sums.size(); ++i) {
      sums[i].narrow(1, 0, own_rows()).add_(part.narrow(3, static_cast<int64_t>(i) * dim, dim));
    }
  }
}

}  // namespace sprocket::parallel

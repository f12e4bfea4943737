#include "parallel/attention/segment_pass.h"

#include <limits>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "kernels/aligned_buffer.h"
#include "parallel/attention/segment_pass_device.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

template <class T>
std::vector<kernels::KvBuffer<T>> views_of(const std::vector<KvTensors>& kv) {
  std::vector<kernels::KvBuffer<T>> views;
  for (const auto& buffer : kv) {
    views.push_back({const_head_view<T>(buffer.k), const_head_view<T>(buffer.v)});
  }
  return views;
}

// Advances messages from inside the kernel, at most once in an interval: a call costs microseconds,
// and what a network delivers meanwhile fits into its buffers.
class MessageProgress {
 public:
  explicit MessageProgress(comm::Communicator* group) : group_(group) {}

  kernels::Progress callback() {
    if (group_ == nullptr) return {};
    return {[](void* self) { static_cast<MessageProgress*>(self)->advance(); }, this};
  }

 private:
  static constexpr int64_t kIntervalNs = 200'000;

  void advance() {
    const int64_t now = monotonic_ns();
    if (now < next_ns_) return;
    group_->progress();
    next_ns_ = monotonic_ns() + kIntervalNs;
  }

  comm::Communicator* group_;
  int64_t next_ns_ = 0;
};

template <class T>
kernels::SegmentAttentionProblem<T> problem_of(const QuerySide& query,
                                               const std::vector<kernels::KvBuffer<T>>& kv,
                                               const kernels::KvBlockMap& map,
                                               const std::optional<kernels::HeadRange>& heads,
                                               MessageProgress& progress) {
  kernels::SegmentAttentionProblem<T> problem;
  problem.head_dim = static_cast<int>(query.q_BLHD.size(3));
  problem.scale = query.scale;
  problem.q = const_head_view<T>(query.q_BLHD);
  problem.query_offsets = query.query_offsets;
  problem.kv = kv;
  problem.table = query.table.get();
  problem.map = &map;
  problem.threads = query.threads;
  problem.query_rows = query.query_rows;
  problem.heads = heads;
  problem.progress = progress.callback();
  return problem;
}

// The kernel's memory for one call, from the store that AlignedBuffer keeps.
template <class T>
class Workspace {
 public:
  Workspace(const kernels::SegmentAttentionProblem<T>& problem, kernels::Direction direction)
      : size_(kernels::segment_attention_workspace_bytes(problem, direction)) {
    memory_.reserve(size_);
  }
  std::span<std::byte> span() const { return {memory_.data(), size_}; }

 private:
  size_t size_;
  kernels::AlignedBuffer<std::byte> memory_;
};

}  // namespace

void attach_device_form(QuerySide& query) {
  if (!query.q_BLHD.is_cpu()) query.device = std::make_shared<DeviceForm>();
}

PassOutput empty_output(const at::Tensor& q_BLHD) {
  const auto options = q_BLHD.options().dtype(accumulator_type(q_BLHD.scalar_type()));
  return {at::zeros(q_BLHD.sizes(), options),
          at::full({q_BLHD.size(0), q_BLHD.size(2), q_BLHD.size(1)},
                   -std::numeric_limits<double>::infinity(), options)};
}

void forward_pass(const QuerySide& query, const std::vector<KvTensors>& kv,
                  const kernels::KvBlockMap& map, PassOutput& output,
                  const std::optional<kernels::HeadRange>& heads) {
  if (!query.q_BLHD.is_cpu()) return device::forward_pass(query, kv, map, output, heads);
  output.untouched = false;
  dispatch_compute_type(query.q_BLHD.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using A = kernels::Accumulator<T>;
    const auto views = views_of<T>(kv);
    MessageProgress progress(query.progress);
    const auto problem = problem_of<T>(query, views, map, heads, progress);
    const Workspace<T> workspace(problem, kernels::Direction::kForward);
    kernels::segment_attention_forward<T>(problem, head_view<A>(output.out_BLHD),
                                          static_cast<A*>(output.lse_BHL.data_ptr()), true,
                                          workspace.span());
  });
}

OutputSide output_side(const at::Tensor& out_BLHD, const at::Tensor& lse_BHL,
                       const at::Tensor& dout_BLHD, int threads) {
  if (!out_BLHD.is_cpu()) {
    return {dout_BLHD, lse_BHL, device::row_delta(out_BLHD, dout_BLHD), out_BLHD};
  }
  at::Tensor delta =
      at::empty({out_BLHD.size(0), out_BLHD.size(2), out_BLHD.size(1)}, out_BLHD.options());
  dispatch_compute_type(dout_BLHD.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using A = kernels::Accumulator<T>;
    kernels::segment_attention_delta<T>(
        const_head_view<A>(out_BLHD), const_head_view<T>(dout_BLHD),
        static_cast<int>(out_BLHD.size(0)), out_BLHD.size(1), static_cast<int>(out_BLHD.size(2)),
        static_cast<int>(out_BLHD.size(3)), static_cast<A*>(delta.data_ptr()), threads);
  });
  return {dout_BLHD, lse_BHL, delta, out_BLHD};
}

void backward_pass(const QuerySide& query, const std::vector<KvTensors>& kv,
                   const kernels::KvBlockMap& map, const OutputSide& output,
                   const at::Tensor& dq_BLHD, const std::vector<KvTensors>& dkv,
                   const std::optional<kernels::HeadRange>& heads) {
  if (!query.q_BLHD.is_cpu()) {
    return device::backward_pass(query, kv, map, output, dq_BLHD, dkv, heads);
  }
  dispatch_compute_type(query.q_BLHD.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using A = kernels::Accumulator<T>;
    const auto views = views_of<T>(kv);
    std::vector<kernels::KvGradBuffer<T>> gradients;
    for (const auto& buffer : dkv)
      gradients.push_back({head_view<A>(buffer.k), head_view<A>(buffer.v)});
    MessageProgress progress(query.progress);
    const auto problem = problem_of<T>(query, views, map, heads, progress);
    const Workspace<T> workspace(problem, kernels::Direction::kBackward);
    kernels::segment_attention_backward<T>(problem, const_head_view<T>(output.dout_BLHD),
                                           static_cast<const A*>(output.lse_BHL.data_ptr()),
                                           static_cast<const A*>(output.delta_BHL.data_ptr()),
                                           head_view<A>(dq_BLHD), gradients, workspace.span());
  });
}

}  // namespace sprocket::parallel

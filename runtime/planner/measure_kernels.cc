#include "runtime/planner/measure_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "base/timeline.h"
#include "kernels/coarse_attention.h"
#include "models/autograd/linear.h"
#include "parallel/attention/segment_pass.h"
#include "parallel/tensor_buffer.h"
#include "runtime/plan/job_specs.h"
#include "runtime/plan/synthetic_selection.h"
#include "runtime/planner/selection_sources.h"

namespace sprocket::runtime {
namespace {

constexpr int kRepetitions = 5;
// Operations of one measured call: tenths of a second on a core or two.
constexpr double kOperations = 3e10;

at::ScalarType torch_type(DType dtype) {
  return dtype == DType::kBF16 ? at::kBFloat16 : dtype == DType::kF64 ? at::kDouble : at::kFloat;
}

// The first query blocks of a few heads against all keys.
class AttentionSample {
 public:
  AttentionSample(const config::Job& job, const parallel::TokenLayout& layout, int threads,
                  double operations) {
    const parallel::AttentionSpec spec =
        attention_spec(job.attention(), job.training().steps() - 1);
    const int heads = std::min<int>(job.model().heads(), std::max(2, threads));
    const int64_t dim = job.model().dim() / job.model().heads();
    const Decimal density = stated_density(spec);
    const double per_block = 4.0 * static_cast<double>(dim * heads * layout.block_capacity()) *
                             density.value() * static_cast<double>(layout.tokens());
    const int blocks = std::clamp(static_cast<int>(operations / per_block), 1, layout.blocks());
    const int64_t rows = layout.block_offsets[blocks], keys = layout.tokens();

    auto table = std::make_shared<kernels::SegmentTable>(
        kernels::SegmentTable{1, heads, blocks, layout.blocks(), {0}, {}});
    const kernels::SegmentTable whole =
        density == Decimal::ratio(1, 0)
            ? kernels::make_dense_table(1, heads, layout.blocks(), layout.blocks())
            : synthetic_selection(layout, heads, density, std::nullopt);
    for (int head = 0; head < heads; ++head) {
      for (int block = 0; block < blocks; ++block) {
        for (const int32_t key : whole.row(0, head, block)) {
          table->kv_block.push_back(key);
          operations_ += 4.0 * static_cast<double>(dim) *
                         static_cast<double>(size_of_block(layout, block)) *
                         static_cast<double>(size_of_block(layout, key));
        }
        table->row_offsets.push_back(static_cast<int64_t>(table->kv_block.size()));
      }
    }
    const parallel::OuterShards all{layout.block_offsets, {0, layout.blocks()}, 0, {}};
    map_ = parallel::empty_map(all);
    parallel::add_shard_blocks(all, 0, 0, map_);
    const auto options = at::TensorOptions().dtype(torch_type(compute_dtype(job)));
    const auto random = [&](int64_t length) {
      return at::randn({1, length, heads, dim}).to(options);
    };
    query_ = {random(rows),
              {layout.block_offsets.begin(), layout.block_offsets.begin() + blocks + 1},
              std::move(table),
              {},
              1 / std::sqrt(static_cast<double>(dim)),
              threads};
    kv_ = {{random(keys), random(keys)}};
    dout_ = random(rows);
    const auto sums = options.dtype(parallel::accumulator_type(query_.q_BLHD.scalar_type()));
    out_ = at::zeros({1, rows, heads, dim}, sums);
    lse_ = at::full({1, heads, rows}, -std::numeric_limits<double>::infinity(), sums);
    dq_ = at::zeros_like(out_);
    dkv_ = {{at::zeros({1, keys, heads, dim}, sums), at::zeros({1, keys, heads, dim}, sums)}};
  }

  double operations() const { return operations_; }

  void forward() {
    out_.zero_();
    lse_.fill_(-std::numeric_limits<double>::infinity());
    parallel::forward_pass(query_, kv_, map_, out_, lse_);
  }
  void backward() {
    const at::Tensor delta = parallel::row_delta(out_, dout_, query_.threads);
    parallel::backward_pass(query_, kv_, map_, dout_, lse_, delta, dq_, dkv_);
  }

 private:
  static int64_t size_of_block(const parallel::TokenLayout& layout, int block) {
    return layout.block_offsets[block + 1] - layout.block_offsets[block];
  }

  double operations_ = 0;
  parallel::QuerySide query_;
  std::vector<parallel::KvTensors> kv_, dkv_;
  kernels::KvBlockMap map_;
  at::Tensor out_, lse_, dout_, dq_;
};

double selection_rate(const config::Job& job, const parallel::TokenLayout& layout, int threads,
                      comm::Communicator* group) {
  const parallel::AttentionSpec spec = attention_spec(job.attention(), job.training().steps() - 1);
  const int heads = std::min<int>(job.model().heads(), std::max(2, threads));
  const int dim = job.model().dim() / job.model().heads(), blocks = layout.blocks();
  const at::Tensor means = at::randn({3, heads, blocks, dim});
  at::Tensor out = at::empty({heads, blocks, dim});
  kernels::CoarseProblem<float> problem;
  problem.batch = 1;
  problem.heads = heads;
  problem.query_blocks = problem.kv_blocks = blocks;
  problem.head_dim = dim;
  problem.scale = 1 / std::sqrt(static_cast<double>(dim));
  problem.qc = means[0].const_data_ptr<float>();
  problem.kc = means[1].const_data_ptr<float>();
  problem.vc = means[2].const_data_ptr<float>();
  problem.threads = threads;
  kernels::CoarseSelection rule;
  rule.k = kernels::selected_count(Decimal::ratio(1, 0) - stated_density(spec), blocks);
  if (const auto budget = domain_budget(layout, spec)) {
    rule.budget = budget;
    rule.budget->head_group = 0;
  }
  const double seconds = median_seconds(group, kRepetitions, [&] {
    kernels::select_and_attend<float>(problem, rule, out.data_ptr<float>());
  });
  return 4.0 * dim * heads * blocks * blocks / seconds;
}

double linear_rate(const config::Job& job, int threads, comm::Communicator* group) {
  const int64_t dim = job.model().dim();
  const double per_row = 6.0 * static_cast<double>(dim * dim);
  const int64_t rows = std::clamp<int64_t>(static_cast<int64_t>(kOperations / per_row), 256, 8192);
  const auto type = torch_type(compute_dtype(job));
  at::Tensor x = at::randn({rows, dim}).to(type).requires_grad_(true);
  at::Tensor weight = at::randn({dim, dim}).requires_grad_(true);
  at::Tensor bias = at::zeros({dim}).requires_grad_(true);
  const at::Tensor dy = at::randn({rows, dim}).to(type);
  models::OpContext op;
  op.threads = threads;
  const double seconds = median_seconds(group, kRepetitions,
                                        [&] { models::linear(x, weight, bias, op).backward(dy); });
  return per_row * static_cast<double>(rows) / seconds;
}

// Into memory that was just taken from the system, as a run's buffers are.
double copy_rate(const config::Job& job, const parallel::TokenLayout& layout, int ranks,
                 comm::Communicator* group) {
  constexpr int64_t kLeast = 1 << 20, kMost = 64 << 20;
  const auto type = torch_type(compute_dtype(job));
  const int64_t count = std::clamp(layout.tokens() * job.model().dim() / ranks, kLeast, kMost);
  const at::Tensor source = at::randn({count}).to(type);
  const double seconds = median_seconds(group, 2 * kRepetitions, [&] {
    at::Tensor copy = at::empty({count}, source.options());
    copy.copy_(source);
  });
  return static_cast<double>(source.nbytes()) / seconds;
}

}  // namespace

double median_seconds(comm::Communicator* group, int repetitions,
                      const std::function<void()>& work) {
  std::vector<double> seconds;
  for (int i = 0; i <= repetitions; ++i) {
    if (group != nullptr) group->barrier();
    const int64_t begin = monotonic_ns();
    work();
    if (i > 0) seconds.push_back(1e-9 * static_cast<double>(monotonic_ns() - begin));
  }
  std::nth_element(seconds.begin(), seconds.begin() + repetitions / 2, seconds.end());
  double median = seconds[repetitions / 2];
  if (group != nullptr) {
    group->all_reduce(comm::Buffer::of(std::span(&median, 1)), comm::ReduceOp::kMax).wait_host();
  }
  return median;
}

DeviceModel measure_device(const config::Job& job, const parallel::TokenLayout& layout, int threads,
                           comm::Communicator* group) {
  DeviceModel device;
  {
    AttentionSample sample(job, layout, threads, kOperations);
    device.attention_forward =
        sample.operations() / median_seconds(group, kRepetitions, [&] { sample.forward(); });
    device.attention_backward =
        2.5 * sample.operations() / median_seconds(group, kRepetitions, [&] { sample.backward(); });
  }
  device.selection = selection_rate(job, layout, threads, group);
  device.linear = linear_rate(job, threads, group);
  device.copy = copy_rate(job, layout, group == nullptr ? 1 : group->size(), group);
  AttentionSample least(job, layout, threads, 1);
  const double seconds = median_seconds(group, 20 * kRepetitions, [&] { least.forward(); });
  device.call = std::max(0.0, seconds - least.operations() / device.attention_forward);
  return device;
}

std::function<void()> busy_kernel(const config::Job& job, const parallel::TokenLayout& layout,
                                  int threads, double seconds) {
  auto sample = std::make_shared<AttentionSample>(job, layout, threads, kOperations / 100);
  const double once = median_seconds(nullptr, kRepetitions, [&] { sample->forward(); });
  const int times = std::max(1, static_cast<int>(std::lround(seconds / once)));
  return [sample, times] {
    for (int i = 0; i < times; ++i) sample->forward();
  };
}

}  // namespace sprocket::runtime

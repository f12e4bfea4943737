#include "runtime/planner/measure_kernels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "base/timeline.h"
#include "kernels/block_selection.h"
#include "kernels/coarse_attention.h"
#include "models/autograd/linear.h"
#include "parallel/attention/domain_imports.h"
#include "parallel/attention/segment_pass.h"
#include "parallel/tensor_buffer.h"
#include "runtime/plan/job_specs.h"
#include "runtime/planner/selection_sources.h"

namespace sprocket::runtime {
namespace {

constexpr int kRepetitions = 7;
// Operations of one measured call: tenths of a second on a core or two.
constexpr double kOperations = 3e10;
// Of a tensor that is made to be measured on.
constexpr int64_t kMostElements = 1 << 24;

at::ScalarType torch_type(DType dtype) {
  return dtype == DType::kBF16 ? at::kBFloat16 : dtype == DType::kF64 ? at::kDouble : at::kFloat;
}

// The first query blocks of a few heads against all keys.
class AttentionSample {
 public:
  // Of query blocks until so many operations are reached, each against at most `most_keys` blocks.
  AttentionSample(const KernelSubject& subject, double operations, size_t most_keys = SIZE_MAX) {
    const config::Job& job = subject.job;
    const parallel::TokenLayout& layout = subject.layout;
    const kernels::SegmentTable& whole = subject.table;
    const int heads = std::min(whole.heads, std::max(2, subject.threads));
    const int64_t dim = job.model().dim() / job.model().heads();
    auto table = std::make_shared<kernels::SegmentTable>(
        kernels::SegmentTable{1, heads, 0, layout.blocks(), {0}, {}});
    const auto keys_of = [&](int head, int block) {
      const std::span<const int32_t> row = whole.row(0, head, block);
      return row.first(std::min(row.size(), most_keys));
    };
    for (; table->query_blocks < layout.blocks(); ++table->query_blocks) {
      if (operations_ >= operations) break;
      for (int head = 0; head < heads; ++head) {
        for (const int32_t key : keys_of(head, table->query_blocks)) {
          operations_ += 4.0 * static_cast<double>(dim) *
                         static_cast<double>(size_of_block(layout, table->query_blocks)) *
                         static_cast<double>(size_of_block(layout, key));
        }
      }
    }
    const int blocks = table->query_blocks;
    for (int head = 0; head < heads; ++head) {
      for (int block = 0; block < blocks; ++block) {
        const auto row = keys_of(head, block);
        table->kv_block.insert(table->kv_block.end(), row.begin(), row.end());
        table->row_offsets.push_back(static_cast<int64_t>(table->kv_block.size()));
      }
    }
    const int64_t rows = layout.block_offsets[blocks], keys = layout.tokens();
    query_rows_ = static_cast<double>(rows * heads);
    const int threads = subject.threads;
    const parallel::OuterShards all{layout.block_offsets, {0, layout.blocks()}, 0, {}, {}};
    whole_ = parallel::empty_map(all);
    parallel::add_shard_blocks(all, 0, 0, whole_);
    // Two passes, over the blocks of even and odd numbers.
    for (kernels::KvBlockMap& half : halves_) half = whole_;
    for (int block = 0; block < layout.blocks(); ++block) halves_[block % 2].blocks[block].rows = 0;
    const auto options = at::TensorOptions().dtype(torch_type(compute_dtype(job)));
    // Rows lie as far apart as in the layer, of whose heads a few are computed.
    const int64_t stored = std::max<int64_t>(
        heads, std::min<int64_t>(job.model().heads(), kMostElements / (keys * dim)));
    const auto random = [&](int64_t length) {
      return at::randn({1, length, stored, dim}).to(options).narrow(2, 0, heads);
    };
    const auto zeros = [&](int64_t length, const at::TensorOptions& type) {
      return at::zeros({1, length, stored, dim}, type).narrow(2, 0, heads);
    };
    query_ = {random(rows),
              {layout.block_offsets.begin(), layout.block_offsets.begin() + blocks + 1},
              std::move(table),
              {},
              1 / std::sqrt(static_cast<double>(dim)),
              threads};
    kv_ = {{random(keys), random(keys)}};
    query_.progress = subject.progress;
    const auto sums = options.dtype(parallel::accumulator_type(query_.q_BLHD.scalar_type()));
    output_.out_BLHD = zeros(rows, sums);
    output_.lse_BHL = at::full({1, heads, rows}, -std::numeric_limits<double>::infinity(), sums);
    side_ = {random(rows), output_.lse_BHL, at::zeros_like(output_.lse_BHL), output_.out_BLHD};
    dq_ = zeros(rows, sums);
    dkv_ = {{zeros(keys, sums), zeros(keys, sums)}};
  }

  double operations() const { return operations_; }
  double query_rows() const { return query_rows_; }

  // Continues from its former result: a layer's zeroing and row sums are other stages.
  void forward(bool twice = false) {
    for (const kernels::KvBlockMap* map : passes(twice)) {
      parallel::forward_pass(query_, kv_, *map, output_);
    }
  }
  void backward(bool twice = false) {
    for (const kernels::KvBlockMap* map : passes(twice)) {
      parallel::backward_pass(query_, kv_, *map, side_, dq_, dkv_);
    }
  }

 private:
  static int64_t size_of_block(const parallel::TokenLayout& layout, int block) {
    return layout.block_offsets[block + 1] - layout.block_offsets[block];
  }

  std::vector<const kernels::KvBlockMap*> passes(bool twice) const {
    if (twice) return {&halves_[0], &halves_[1]};
    return {&whole_};
  }

  double operations_ = 0, query_rows_ = 0;
  parallel::QuerySide query_;
  std::vector<parallel::KvTensors> kv_, dkv_;
  kernels::KvBlockMap whole_;
  std::array<kernels::KvBlockMap, 2> halves_;
  parallel::PassOutput output_;
  parallel::OutputSide side_;
  at::Tensor dq_;
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
  const int k = kernels::selected_count(Decimal::ratio(1, 0) - stated_density(spec), blocks);
  auto budget = parallel::domain_budget(layout, spec.budget);
  if (budget) budget->head_group = 0;
  const double seconds = median_seconds(group, kRepetitions, [&] {
    if (!budget) {
      kernels::select_and_attend<float>(problem, k, out.data_ptr<float>());
      return;
    }
    const auto selection = kernels::budgeted_selection<float>(
        problem, k, *budget, {0, budget->domains()}, out.data_ptr<float>());
    kernels::select_alone(*budget, *selection, threads);
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
  const double seconds = median_seconds(group, kRepetitions, [&] {
    models::linear(x, {weight, bias}, op).backward(dy);
  });
  return per_row * static_cast<double>(rows) / seconds;
}

// As Ulysses packs a message of several tensors: rows of all heads into parts of some heads each.
// One tensor alone could stay in a cache, which a layer's copies do not find it in.
double copy_rate(const config::Job& job, const parallel::TokenLayout& layout, int ranks,
                 comm::Communicator* group) {
  constexpr int64_t kLeastRows = 256, kTensors = 5;
  const auto type = torch_type(compute_dtype(job));
  const int64_t heads = job.model().heads(), dim = job.model().dim() / heads;
  const int64_t most = std::max(kLeastRows, 2 * kMostElements / (kTensors * heads * dim));
  const int64_t rows = std::clamp(layout.tokens() / ranks, kLeastRows, most);
  const int64_t parts = heads % 2 == 0 ? 2 : heads;
  const at::Tensor source = at::randn({kTensors, rows, parts, heads / parts, dim}).to(type);
  const at::Tensor copy = at::empty({parts, kTensors, rows, heads / parts, dim}, source.options());
  const double seconds = median_seconds(group, 2 * kRepetitions, [&] {
    for (int64_t i = 0; i < kTensors; ++i) copy.select(1, i).copy_(source[i].movedim(1, 0));
  });
  return static_cast<double>(source.nbytes()) / seconds;
}

}  // namespace

double median_seconds(comm::Communicator* group, int repetitions,
                      const std::function<void()>& work) {
  return medians_in_turns(group, repetitions, {work}).front();
}

std::vector<double> medians_in_turns(comm::Communicator* group, int repetitions,
                                     const std::vector<std::function<void()>>& works) {
  std::vector<std::vector<double>> seconds(works.size());
  for (int i = 0; i <= repetitions; ++i) {
    for (size_t w = 0; w < works.size(); ++w) {
      if (group != nullptr) group->barrier();
      const int64_t begin = monotonic_ns();
      works[w]();
      if (i > 0) seconds[w].push_back(1e-9 * static_cast<double>(monotonic_ns() - begin));
    }
  }
  std::vector<double> medians;
  for (std::vector<double>& each : seconds) {
    std::nth_element(each.begin(), each.begin() + repetitions / 2, each.end());
    medians.push_back(each[repetitions / 2]);
  }
  if (group != nullptr) {
    group->all_reduce(comm::Buffer::of(std::span(medians)), comm::ReduceOp::kMax).wait_host();
  }
  return medians;
}

DeviceModel measure_device(const KernelSubject& subject, comm::Communicator* group) {
  const config::Job& job = subject.job;
  DeviceModel device;
  {
    AttentionSample sample(subject, kOperations);
    const auto rates = [&](void (AttentionSample::*pass)(bool), double operations, double& rate,
                           double& row) {
      const auto seconds = medians_in_turns(
          group, kRepetitions, {[&] { (sample.*pass)(false); }, [&] { (sample.*pass)(true); }});
      const double once = seconds[0], twice = seconds[1];
      // One pass costs its rows as well; most of it is the pairs.
      const double rows = std::clamp(twice - once, 0.0, once / 2);
      row = rows / sample.query_rows();
      rate = operations / (once - rows);
    };
    rates(&AttentionSample::forward, sample.operations(), device.attention_forward,
          device.forward_row);
    rates(&AttentionSample::backward, 2.5 * sample.operations(), device.attention_backward,
          device.backward_row);
  }
  device.selection = selection_rate(job, subject.layout, subject.threads, group);
  device.linear = linear_rate(job, subject.threads, group);
  device.copy = copy_rate(job, subject.layout, group == nullptr ? 1 : group->size(), group);
  AttentionSample least(subject, 1, 1);
  const double seconds = median_seconds(group, 20 * kRepetitions, [&] { least.forward(); });
  device.call = std::max(0.0, seconds - least.operations() / device.attention_forward -
                                  least.query_rows() * device.forward_row);
  return device;
}

std::function<void()> busy_kernel(const KernelSubject& subject, double seconds) {
  auto sample = std::make_shared<AttentionSample>(subject, kOperations / 100);
  const double once = median_seconds(nullptr, kRepetitions, [&] { sample->forward(); });
  const int times = std::max(1, static_cast<int>(std::lround(seconds / once)));
  return [sample, times] {
    for (int i = 0; i < times; ++i) sample->forward();
  };
}

}  // namespace sprocket::runtime

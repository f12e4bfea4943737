#include "parallel/attention/selection_device.h"

#include <ATen/ops/empty.h>

#include "kernels/cuda/coarse_attention.h"
#include "kernels/cuda/sampled_scores.h"
#include "kernels/cuda/score_selection.h"
#include "kernels/cuda/threshold_selection.h"
#include "parallel/device/cuda_tensor.h"
#include "parallel/device/host_copy.h"

namespace sprocket::parallel::device {
namespace {

namespace kc = kernels::cuda;
using cuda::extent;

float* data_or_null(const at::Tensor& x) { return x.defined() ? cuda::out<float>(x) : nullptr; }

kc::DeviceCoarseProblem problem_of(const CoarseTensors& coarse) {
  kc::DeviceCoarseProblem problem;
  problem.batch = extent(coarse.q, 0);
  problem.heads = extent(coarse.q, 1);
  problem.query_blocks = extent(coarse.q, 2);
  problem.kv_blocks = extent(coarse.k, 2);
  problem.head_dim = extent(coarse.q, 3);
  problem.scale = coarse.scale;
  problem.qc = cuda::in<float>(coarse.q);
  problem.kc = cuda::in<float>(coarse.k);
  problem.vc = coarse.v.defined() ? cuda::in<float>(coarse.v) : nullptr;
  problem.first_query_block = coarse.first_query_block;
  problem.prefix_blocks = coarse.prefix_blocks;
  problem.prefix_rule = coarse.prefix_rule;
  return problem;
}

kc::DeviceScores problem_of(const ScoreTensors& tensors) {
  kc::DeviceScores scores;
  scores.batch = extent(tensors.scores, 0);
  scores.heads = extent(tensors.scores, 1);
  scores.query_blocks = extent(tensors.scores, 2);
  scores.kv_blocks = tensors.prefix_blocks + extent(tensors.scores, 3);
  scores.first_query_block = tensors.first_query_block;
  scores.prefix_blocks = tensors.prefix_blocks;
  scores.scores = cuda::in<float>(tensors.scores);
  return scores;
}

// Memory that a selection writes its table to.
class TableMemory {
 public:
  TableMemory(int64_t rows, int64_t max_pairs, const at::Tensor& like)
      : row_offsets_(at::empty({rows + 1}, like.options().dtype(at::kInt))),
        kv_block_(at::empty({max_pairs}, like.options().dtype(at::kInt))) {}

  kc::DeviceTableBuffers buffers() const {
    return {cuda::out<int32_t>(row_offsets_), cuda::out<int32_t>(kv_block_)};
  }

  // The stream is waited for. Of the room for pairs, only what is in use is copied.
  kernels::SegmentTable on_host(const kc::DeviceTable& shape) const {
    kernels::SegmentTable table{shape.batch,     shape.heads, shape.query_blocks,
                                shape.kv_blocks, {},          {}};
    const at::Tensor offsets = row_offsets_.cpu();
    const int32_t* const first = offsets.const_data_ptr<int32_t>();
    table.row_offsets.assign(first, first + offsets.numel());
    const at::Tensor blocks = kv_block_.narrow(0, 0, table.row_offsets.back()).cpu();
    const int32_t* const ids = blocks.const_data_ptr<int32_t>();
    table.kv_block.assign(ids, ids + blocks.numel());
    return table;
  }

 private:
  at::Tensor row_offsets_, kv_block_;
};

template <class Problem>
int64_t rows_of(const Problem& problem) {
  return int64_t{problem.batch} * problem.heads * problem.query_blocks;
}

}  // namespace

kernels::SegmentTable select_and_attend(const CoarseTensors& coarse, int k, const at::Tensor& out) {
  const kc::DeviceCoarseProblem problem = problem_of(coarse);
  const TableMemory memory(rows_of(problem), kc::selected_pairs(problem, k), coarse.q);
  return memory.on_host(
      kc::select_and_attend(problem, k, memory.buffers(), data_or_null(out), stream_of(coarse.q)));
}

void coarse_attend(const CoarseTensors& coarse, const at::Tensor& out) {
  kc::coarse_attend(problem_of(coarse), cuda::out<float>(out), stream_of(coarse.q));
}

void coarse_attend_backward(const CoarseTensors& coarse, const at::Tensor& dout,
                            const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv) {
  const kc::DeviceCoarseProblem problem = problem_of(coarse);
  const cuda::CallWorkspace workspace(kc::coarse_backward_workspace_bytes(problem), coarse.q);
  kc::coarse_attend_backward(problem, cuda::in<float>(dout), cuda::out<float>(dq),
                             cuda::out<float>(dk), cuda::out<float>(dv), workspace.data(),
                             stream_of(coarse.q));
}

kernels::SegmentTable select_by_threshold(const CoarseTensors& coarse,
                                          const kernels::ThresholdBounds& bounds) {
  const kc::DeviceCoarseProblem problem = problem_of(coarse);
  const TableMemory memory(rows_of(problem), kc::most_pairs(problem), coarse.q);
  const cuda::CallWorkspace workspace(kc::threshold_workspace_bytes(problem), coarse.q);
  return memory.on_host(kc::select_by_threshold(problem, bounds, memory.buffers(), workspace.data(),
                                                stream_of(coarse.q)));
}

ScoreTensors sampled_scores(const MethodContext& context, const SampledBlocks& sampled,
                            kernels::SampledScore score) {
  const at::Tensor q_counts = ints_on(sampled.q_samples.counts, sampled.q.device()),
                   k_counts = ints_on(sampled.k_samples.counts, sampled.q.device());
  kc::DeviceSampledProblem problem;
  problem.batch = extent(sampled.q, 0);
  problem.heads = extent(sampled.q, 1);
  problem.query_blocks = sampled.q_samples.blocks;
  problem.kv_blocks = sampled.k_samples.blocks;
  problem.samples = sampled.q_samples.samples;
  problem.head_dim = extent(sampled.q, 3) / sampled.q_samples.samples;
  problem.scale = context.scale;
  problem.score = score;
  problem.q = cuda::in<float>(sampled.q);
  problem.k = cuda::in<float>(sampled.k);
  problem.q_counts = cuda::in<int32_t>(q_counts);
  problem.k_counts = cuda::in<int32_t>(k_counts);
  problem.first_query_block = context.first_block();
  problem.prefix_blocks = context.layout.prefix_blocks();
  const at::Tensor scores = at::empty({problem.batch, problem.heads, problem.query_blocks,
                                       problem.kv_blocks - problem.prefix_blocks},
                                      sampled.q.options());
  kc::sampled_scores(problem, cuda::out<float>(scores), stream_of(sampled.q));
  return {scores, problem.first_query_block, problem.prefix_blocks};
}

kernels::SegmentTable select_by_mass(const ScoreTensors& tensors,
                                     const kernels::MassBounds& bounds) {
  const kc::DeviceScores scores = problem_of(tensors);
  const TableMemory memory(scores.rows(), kc::mass_pairs(scores, bounds), tensors.scores);
  const cuda::CallWorkspace workspace(kc::mass_workspace_bytes(scores), tensors.scores);
  return memory.on_host(kc::select_by_mass(scores, bounds, memory.buffers(), workspace.data(),
                                           stream_of(tensors.scores)));
}

kernels::SegmentTable select_levels(const ScoreTensors& tensors, const kernels::LevelBounds& bounds,
                                    const kernels::PyramidLayout& pyramid, const at::Tensor& caps) {
  const kc::DeviceScores scores = problem_of(tensors);
  SPROCKET_CHECK_EQ(bounds.levels, pyramid.levels());
  SPROCKET_CHECK_EQ(scores.kv_blocks, pyramid.blocks());
  static_assert(sizeof(kernels::SegmentRange) == 2 * sizeof(int32_t));
  const at::Tensor ranges =
      bytes_on(std::span<const kernels::SegmentRange>(pyramid.ranges), tensors.scores.device());
  const kc::DevicePyramid on_device{pyramid.segments(), cuda::in<int32_t>(ranges)};
  const TableMemory memory(scores.rows(), kc::level_pairs(scores, on_device), tensors.scores);
  const cuda::CallWorkspace workspace(kc::level_workspace_bytes(scores, on_device), tensors.scores);
  return memory.on_host(kc::select_levels(
      scores, bounds, on_device, caps.defined() ? cuda::in<uint8_t>(caps) : nullptr, nullptr,
      memory.buffers(), workspace.data(), stream_of(tensors.scores)));
}

}  // namespace sprocket::parallel::device

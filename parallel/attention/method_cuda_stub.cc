// What attention methods call for tensors on a device, in builds without CUDA.
#include "base/error.h"
#include "parallel/attention/block_summaries_device.h"
#include "parallel/attention/gated_branches_device.h"
#include "parallel/attention/key_rows_device.h"
#include "parallel/attention/pruned_queries_device.h"
#include "parallel/attention/selection_device.h"

namespace sprocket::parallel::device {
namespace {

[[noreturn]] void refuse() {
  throw InternalError("an attention method on a device in a build without CUDA");
}

}  // namespace

at::Tensor block_means(const at::Tensor&, const std::vector<int64_t>&) { refuse(); }
at::Tensor sub_block_means(const at::Tensor&, const std::vector<int64_t>&, int, int) { refuse(); }
void add_block_mean_gradients(const at::Tensor&, const std::vector<int64_t>&, const at::Tensor&) {
  refuse();
}
at::Tensor gather_samples(const at::Tensor&, const kernels::BlockSamples&) { refuse(); }
at::Tensor similarity_caps(const at::Tensor&, const std::vector<int64_t>&, std::span<const int>,
                           std::span<const double>) {
  refuse();
}

void combine_branches(const BranchTensors&, const std::vector<int64_t>&, const at::Tensor&) {
  refuse();
}
void combine_branches_backward(const BranchTensors&, const std::vector<int64_t>&, const at::Tensor&,
                               const BranchGradientTensors&) {
  refuse();
}

void expand_pyramid(const at::Tensor&, const kernels::PyramidLayout&, const at::Tensor&) {
  refuse();
}
void add_pyramid_gradient(const at::Tensor&, const kernels::PyramidLayout&, const at::Tensor&) {
  refuse();
}

kernels::QueryPruning prune_queries(const at::Tensor&, std::span<const int64_t>,
                                    std::span<const kernels::TokenPosition>,
                                    const kernels::PruningSpec&, int) {
  refuse();
}
PruningTensors upload_pruning(const kernels::QueryPruning&, const at::Device&) { refuse(); }
void gather_rows(const at::Tensor&, const at::Tensor&, const at::Tensor&) { refuse(); }
at::Tensor kept_means(const at::Tensor&, const PruningTensors&) { refuse(); }
void recover_rows_backward(const at::Tensor&, const PruningTensors&, const at::Tensor&) {
  refuse();
}
void scatter_query_gradients(const at::Tensor&, const PruningTensors&, const at::Tensor&) {
  refuse();
}

kernels::SegmentTable select_and_attend(const CoarseTensors&, int, const at::Tensor&) { refuse(); }
void coarse_attend(const CoarseTensors&, const at::Tensor&) { refuse(); }
void coarse_attend_backward(const CoarseTensors&, const at::Tensor&, const at::Tensor&,
                            const at::Tensor&, const at::Tensor&) {
  refuse();
}
kernels::SegmentTable select_by_threshold(const CoarseTensors&, const kernels::ThresholdBounds&) {
  refuse();
}
ScoreTensors sampled_scores(const MethodContext&, const SampledBlocks&, kernels::SampledScore) {
  refuse();
}
kernels::SegmentTable select_by_mass(const ScoreTensors&, const kernels::MassBounds&) { refuse(); }
kernels::SegmentTable select_levels(const ScoreTensors&, const kernels::LevelBounds&,
                                    const kernels::PyramidLayout&, const at::Tensor&) {
  refuse();
}

}  // namespace sprocket::parallel::device

#include "base/error.h"
#include "parallel/attention/vsa_device.h"

namespace sprocket::parallel::device {
namespace {

[[noreturn]] void refuse() { throw InternalError("VSA on a device in a build without CUDA"); }

}  // namespace

at::Tensor block_means(const at::Tensor&, const std::vector<int64_t>&) { refuse(); }

void add_block_mean_gradients(const at::Tensor&, const std::vector<int64_t>&, const at::Tensor&) {
  refuse();
}

kernels::SegmentTable select_and_attend(const CoarseTensors&, int, const at::Tensor&) { refuse(); }

void coarse_attend(const CoarseTensors&, const at::Tensor&) { refuse(); }

void coarse_attend_backward(const CoarseTensors&, const at::Tensor&, const at::Tensor&,
                            const at::Tensor&, const at::Tensor&) {
  refuse();
}

void combine_branches(const BranchTensors&, const std::vector<int64_t>&, const at::Tensor&) {
  refuse();
}

void combine_branches_backward(const BranchTensors&, const std::vector<int64_t>&, const at::Tensor&,
                               const BranchGradientTensors&) {
  refuse();
}

}  // namespace sprocket::parallel::device

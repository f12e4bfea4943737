#include "parallel/attention/gated_branches_device.h"

#include "kernels/cuda/branch_combine.h"
#include "parallel/device/cuda_tensor.h"
#include "parallel/device/host_copy.h"

namespace sprocket::parallel::device {
namespace {

namespace kc = kernels::cuda;

float* data_or_null(const at::Tensor& x) { return x.defined() ? cuda::out<float>(x) : nullptr; }

template <class T>
kernels::HeadView<const T> const_view_or_none(const at::Tensor& x) {
  return x.defined() ? cuda::const_view_of<T>(x) : kernels::HeadView<const T>{};
}
template <class T>
kernels::HeadView<T> view_or_none(const at::Tensor& x) {
  return x.defined() ? cuda::view_of<T>(x) : kernels::HeadView<T>{};
}

// like: [B, L, H, D].
template <class T>
kc::Branches<T> branches_of(const BranchTensors& tensors, const at::Tensor& offsets,
                            const at::Tensor& like) {
  kc::Branches<T> branches;
  branches.fine = const_view_or_none<float>(tensors.fine);
  branches.fine_gate = const_view_or_none<T>(tensors.fine_gate);
  branches.coarse = data_or_null(tensors.coarse);
  branches.coarse_gate = const_view_or_none<T>(tensors.coarse_gate);
  branches.offsets = cuda::in<int64_t>(offsets);
  branches.blocks = static_cast<int>(offsets.numel()) - 1;
  branches.batch = cuda::extent(like, 0);
  branches.heads = cuda::extent(like, 2);
  branches.head_dim = cuda::extent(like, 3);
  return branches;
}

}  // namespace

void combine_branches(const BranchTensors& branches, const std::vector<int64_t>& offsets,
                      const at::Tensor& out_BLHD) {
  const at::Tensor on_device = longs_on(offsets, out_BLHD.device());
  cuda::dispatch_device_type(out_BLHD.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    kc::combine_branches<T>(branches_of<T>(branches, on_device, out_BLHD),
                            cuda::view_of<T>(out_BLHD), stream_of(out_BLHD));
  });
}

void combine_branches_backward(const BranchTensors& branches, const std::vector<int64_t>& offsets,
                               const at::Tensor& dout_BLHD,
                               const BranchGradientTensors& gradients) {
  const at::Tensor on_device = longs_on(offsets, dout_BLHD.device());
  cuda::dispatch_device_type(dout_BLHD.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    kc::BranchGradients<T> to;
    to.dcoarse = data_or_null(gradients.dcoarse);
    to.dcoarse_gate = view_or_none<T>(gradients.dcoarse_gate);
    to.dfine_gate = view_or_none<T>(gradients.dfine_gate);
    to.dfine = view_or_none<T>(gradients.dfine);
    kc::combine_branches_backward<T>(branches_of<T>(branches, on_device, dout_BLHD),
                                     cuda::const_view_of<T>(dout_BLHD), to, stream_of(dout_BLHD));
  });
}

}  // namespace sprocket::parallel::device

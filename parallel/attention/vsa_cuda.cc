#include <ATen/ops/empty.h>

#include "kernels/cuda/block_pooling.h"
#include "kernels/cuda/branch_combine.h"
#include "kernels/cuda/coarse_attention.h"
#include "parallel/attention/vsa_device.h"
#include "parallel/device/cuda_tensor.h"
#include "parallel/device/host_copy.h"

namespace sprocket::parallel::device {
namespace {

namespace kc = kernels::cuda;

// Row offsets in device memory, kept until the call that reads them has been enqueued: later work
// of the stream alone can get the memory.
class Offsets {
 public:
  Offsets(const std::vector<int64_t>& offsets, const at::Tensor& like)
      : blocks_(static_cast<int>(offsets.size()) - 1),
        memory_(bytes_on(std::span<const int64_t>(offsets), like.device())) {}
  int blocks() const { return blocks_; }
  const int64_t* data() const { return static_cast<const int64_t*>(memory_.const_data_ptr()); }

 private:
  int blocks_;
  at::Tensor memory_;
};

int extent(const at::Tensor& x, int64_t dim) { return static_cast<int>(x.size(dim)); }

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
  problem.vc = cuda::in<float>(coarse.v);
  problem.first_query_block = coarse.first_query_block;
  problem.prefix_blocks = coarse.prefix_blocks;
  problem.prefix_rule = coarse.prefix_rule;
  return problem;
}

// The host's copy of a table; the stream is waited for.
kernels::SegmentTable host_table(const kc::DeviceTable& shape, const at::Tensor& row_offsets,
                                 const at::Tensor& kv_block) {
  kernels::SegmentTable table{shape.batch,     shape.heads, shape.query_blocks,
                              shape.kv_blocks, {},          {}};
  const at::Tensor offsets = row_offsets.cpu(), blocks = kv_block.cpu();
  const int32_t* const first = offsets.const_data_ptr<int32_t>();
  table.row_offsets.assign(first, first + offsets.numel());
  const int32_t* const ids = blocks.const_data_ptr<int32_t>();
  table.kv_block.assign(ids, ids + table.row_offsets.back());
  return table;
}

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
kc::Branches<T> branches_of(const BranchTensors& tensors, const Offsets& offsets,
                            const at::Tensor& like) {
  kc::Branches<T> branches;
  branches.fine = const_view_or_none<float>(tensors.fine);
  branches.fine_gate = const_view_or_none<T>(tensors.fine_gate);
  branches.coarse = data_or_null(tensors.coarse);
  branches.coarse_gate = const_view_or_none<T>(tensors.coarse_gate);
  branches.offsets = offsets.data();
  branches.blocks = offsets.blocks();
  branches.batch = extent(like, 0);
  branches.heads = extent(like, 2);
  branches.head_dim = extent(like, 3);
  return branches;
}

}  // namespace

at::Tensor block_means(const at::Tensor& x_BLHD, const std::vector<int64_t>& offsets) {
  const Offsets on_device(offsets, x_BLHD);
  at::Tensor means = at::empty({x_BLHD.size(0), x_BLHD.size(2), on_device.blocks(), x_BLHD.size(3)},
                               x_BLHD.options().dtype(at::kFloat));
  const kernels::HeadView<const void> view{x_BLHD.const_data_ptr(), x_BLHD.stride(0),
                                           x_BLHD.stride(1), x_BLHD.stride(2)};
  kc::pool_blocks(view, dtype_of(x_BLHD.scalar_type()), on_device.data(), on_device.blocks(),
                  extent(x_BLHD, 0), extent(x_BLHD, 2), extent(x_BLHD, 3), cuda::out<float>(means),
                  stream_of(x_BLHD));
  return means;
}

void add_block_mean_gradients(const at::Tensor& dmeans, const std::vector<int64_t>& offsets,
                              const at::Tensor& dx_BLHD) {
  const Offsets on_device(offsets, dx_BLHD);
  kc::add_pooling_gradient(cuda::in<float>(dmeans), on_device.data(), on_device.blocks(),
                           extent(dx_BLHD, 0), extent(dx_BLHD, 2), extent(dx_BLHD, 3),
                           cuda::view_of<float>(dx_BLHD), stream_of(dx_BLHD));
}

kernels::SegmentTable select_and_attend(const CoarseTensors& coarse, int k, const at::Tensor& out) {
  const kc::DeviceCoarseProblem problem = problem_of(coarse);
  const auto options = coarse.q.options().dtype(at::kInt);
  const int64_t rows = int64_t{problem.batch} * problem.heads * problem.query_blocks;
  const at::Tensor row_offsets = at::empty({rows + 1}, options);
  const at::Tensor kv_block = at::empty({kc::selected_pairs(problem, k)}, options);
  const kc::DeviceTable table = kc::select_and_attend(
      problem, k, {cuda::out<int32_t>(row_offsets), cuda::out<int32_t>(kv_block)},
      data_or_null(out), stream_of(coarse.q));
  return host_table(table, row_offsets, kv_block);
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

void combine_branches(const BranchTensors& branches, const std::vector<int64_t>& offsets,
                      const at::Tensor& out_BLHD) {
  const Offsets on_device(offsets, out_BLHD);
  cuda::dispatch_device_type(out_BLHD.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    kc::combine_branches<T>(branches_of<T>(branches, on_device, out_BLHD),
                            cuda::view_of<T>(out_BLHD), stream_of(out_BLHD));
  });
}

void combine_branches_backward(const BranchTensors& branches, const std::vector<int64_t>& offsets,
                               const at::Tensor& dout_BLHD,
                               const BranchGradientTensors& gradients) {
  const Offsets on_device(offsets, dout_BLHD);
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

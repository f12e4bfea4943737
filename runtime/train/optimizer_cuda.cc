#include <ATen/ops/empty.h>

#include "kernels/cuda/optimizer.h"
#include "parallel/device/cuda_tensor.h"
#include "parallel/device/host_copy.h"
#include "runtime/train/optimizer_device.h"

namespace sprocket::runtime::device {

namespace kc = kernels::cuda;
using parallel::bytes_on;
using parallel::cuda::in;
using parallel::cuda::out;

double sum_of_squares(const at::Tensor& values) {
  const at::Tensor sum = at::empty({1}, values.options().dtype(at::kDouble));
  const parallel::cuda::CallWorkspace workspace(kc::sum_of_squares_workspace_bytes(values.numel()),
                                                values);
  kc::sum_of_squares(in<float>(values), values.numel(), out<double>(sum), workspace.view(),
                     parallel::stream_of(values));
  return sum.item<double>();
}

void adamw_update(const kernels::AdamWStep& step, const at::Tensor& gradient,
                  const at::Tensor& parameter, const at::Tensor& mean, const at::Tensor& square,
                  const at::Tensor& copy) {
  using Tensor = kc::AdamWTensor<__nv_bfloat16>;
  const Tensor flat{in<float>(gradient),
                    out<float>(parameter),
                    out<float>(mean),
                    out<float>(square),
                    copy.defined() ? out<__nv_bfloat16>(copy) : nullptr,
                    parameter.numel()};
  const std::vector<kc::TensorChunk> chunks = kc::tensor_chunks({parameter.numel()});
  const at::Tensor tensors_on_device =
      bytes_on(std::span<const Tensor>(&flat, 1), parameter.device());
  const at::Tensor chunks_on_device =
      bytes_on(std::span<const kc::TensorChunk>(chunks), parameter.device());
  kc::adamw_update<__nv_bfloat16>(
      step, static_cast<const Tensor*>(tensors_on_device.const_data_ptr()),
      static_cast<const kc::TensorChunk*>(chunks_on_device.const_data_ptr()),
      static_cast<int64_t>(chunks.size()), nullptr, parallel::stream_of(parameter));
}

}  // namespace sprocket::runtime::device

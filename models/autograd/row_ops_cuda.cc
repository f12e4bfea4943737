#include "kernels/cuda/elementwise.h"
#include "models/autograd/row_ops.h"
#include "parallel/device/cuda_tensor.h"

namespace sprocket::models {
namespace {

using parallel::stream_of;
using parallel::cuda::CallWorkspace;
using parallel::cuda::dispatch_device_type;
using parallel::cuda::in;
using parallel::cuda::out;

kernels::RowAffine<float> affine_of(const RowOps::Affine& affine) {
  return {in<float>(affine.scale), affine.shift.defined() ? in<float>(affine.shift) : nullptr,
          affine.per_sample ? affine.scale.size(1) : 0, affine.base};
}

kernels::Rotation<float> rotation_of(const RopeTables& rope, int64_t head_dim) {
  if (!rope.cos.defined()) return {};
  return {in<float>(rope.cos), in<float>(rope.sin), head_dim};
}

// `threads` are the processor's.
class CudaRowOps : public RowOps {
 public:
  void layer_norm(const at::Tensor& x, const Affine& affine, double eps, const at::Tensor& y,
                  int) const override {
    dispatch_device_type(y.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      kernels::cuda::layer_norm<T>(in<float>(x), affine_of(affine), x.size(0), x.size(1), x.size(2),
                                   eps, out<T>(y), stream_of(x));
    });
  }

  void layer_norm_backward(const at::Tensor& dy, const at::Tensor& x, const Affine& affine,
                           double eps, const at::Tensor& dx, const at::Tensor& dscale,
                           const at::Tensor& dshift, int) const override {
    const CallWorkspace workspace(
        kernels::cuda::layer_norm_backward_workspace_bytes(x.size(0), x.size(1), x.size(2)), x);
    dispatch_device_type(dy.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      kernels::cuda::layer_norm_backward<T>(
          in<T>(dy), in<float>(x), affine_of(affine), x.size(0), x.size(1), x.size(2), eps,
          out<float>(dx), out<float>(dscale), out<float>(dshift), workspace.view(), stream_of(x));
    });
  }

  void rms_norm_rotate(const at::Tensor& x, const at::Tensor& weight, const RopeTables& rope,
                       int64_t head_dim, double eps, const at::Tensor& y, int) const override {
    dispatch_device_type(x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      kernels::cuda::rms_norm_rotate<T>(in<T>(x), in<float>(weight), rotation_of(rope, head_dim),
                                        x.size(0), x.size(1), x.size(2), eps, out<T>(y),
                                        stream_of(x));
    });
  }

  void rms_norm_rotate_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                                const RopeTables& rope, int64_t head_dim, double eps,
                                const at::Tensor& dx, const at::Tensor& dweight,
                                int) const override {
    const CallWorkspace workspace(
        kernels::cuda::rms_norm_rotate_backward_workspace_bytes(x.size(0), x.size(1), x.size(2)),
        x);
    dispatch_device_type(x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      kernels::cuda::rms_norm_rotate_backward<T>(
          in<T>(dy), in<T>(x), in<float>(weight), rotation_of(rope, head_dim), x.size(0), x.size(1),
          x.size(2), eps, out<T>(dx), out<float>(dweight), workspace.view(), stream_of(x));
    });
  }

  void add_gated(const at::Tensor& y, const at::Tensor& gate, const at::Tensor& x,
                 int) const override {
    dispatch_device_type(y.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      kernels::cuda::add_gated<T>(in<T>(y), gate.defined() ? in<float>(gate) : nullptr, x.size(2),
                                  x.size(0), x.size(1), x.size(2), out<float>(x), stream_of(x));
    });
  }

  void add_gated_backward(const at::Tensor& dx, const at::Tensor& y, const at::Tensor& gate,
                          const at::Tensor& dy, const at::Tensor& dgate, int) const override {
    const CallWorkspace workspace(
        kernels::cuda::add_gated_backward_workspace_bytes(y.size(0), y.size(1), y.size(2)), y);
    dispatch_device_type(y.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      kernels::cuda::add_gated_backward<T>(in<float>(dx), in<T>(y), in<float>(gate), y.size(2),
                                           y.size(0), y.size(1), y.size(2), out<T>(dy),
                                           out<float>(dgate), workspace.view(), stream_of(y));
    });
  }

  void gelu(const at::Tensor& x, const at::Tensor& y, int) const override {
    dispatch_device_type(x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      kernels::cuda::gelu_tanh<T>(in<T>(x), x.numel(), out<T>(y), stream_of(x));
    });
  }

  void gelu_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx,
                     int) const override {
    dispatch_device_type(x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      kernels::cuda::gelu_tanh_backward<T>(in<T>(dy), in<T>(x), x.numel(), out<T>(dx),
                                           stream_of(x));
    });
  }
};

}  // namespace

const RowOps& cuda_row_ops() {
  static const CudaRowOps ops;
  return ops;
}

}  // namespace sprocket::models

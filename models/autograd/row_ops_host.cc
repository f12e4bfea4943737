#include "kernels/elementwise.h"
#include "models/autograd/row_ops.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::models {
namespace {

using parallel::dispatch_compute_type;

template <class T>
const T* in(const at::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

template <class T>
T* out(const at::Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

template <class A>
kernels::RowAffine<A> affine_of(const RowOps::Affine& affine) {
  return {in<A>(affine.scale), affine.shift.defined() ? in<A>(affine.shift) : nullptr,
          affine.per_sample ? affine.scale.size(1) : 0, affine.base};
}

template <class A>
kernels::Rotation<A> rotation_of(const RopeTables& rope, int64_t head_dim) {
  if (!rope.cos.defined()) return {};
  return {in<A>(rope.cos), in<A>(rope.sin), head_dim};
}

class HostRowOps : public RowOps {
 public:
  void layer_norm(const at::Tensor& x, const Affine& affine, double eps, const at::Tensor& y,
                  int threads) const override {
    dispatch_compute_type(y.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      using A = kernels::Accumulator<T>;
      kernels::layer_norm<T>(in<A>(x), affine_of<A>(affine), x.size(0), x.size(1), x.size(2), eps,
                             out<T>(y), threads);
    });
  }

  void layer_norm_backward(const at::Tensor& dy, const at::Tensor& x, const Affine& affine,
                           double eps, const at::Tensor& dx, const at::Tensor& dscale,
                           const at::Tensor& dshift, int threads) const override {
    dispatch_compute_type(dy.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      using A = kernels::Accumulator<T>;
      kernels::layer_norm_backward<T>(in<T>(dy), in<A>(x), affine_of<A>(affine), x.size(0),
                                      x.size(1), x.size(2), eps, out<A>(dx), out<A>(dscale),
                                      out<A>(dshift), threads);
    });
  }

  void rms_norm_rotate(const at::Tensor& x, const at::Tensor& weight, const RopeTables& rope,
                       int64_t head_dim, double eps, const at::Tensor& y,
                       int threads) const override {
    dispatch_compute_type(x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      using A = kernels::Accumulator<T>;
      kernels::rms_norm_rotate<T>(in<T>(x), in<A>(weight), rotation_of<A>(rope, head_dim),
                                  x.size(0), x.size(1), x.size(2), eps, out<T>(y), threads);
    });
  }

  void rms_norm_rotate_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                                const RopeTables& rope, int64_t head_dim, double eps,
                                const at::Tensor& dx, const at::Tensor& dweight,
                                int threads) const override {
    dispatch_compute_type(x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      using A = kernels::Accumulator<T>;
      kernels::rms_norm_rotate_backward<T>(in<T>(dy), in<T>(x), in<A>(weight),
                                           rotation_of<A>(rope, head_dim), x.size(0), x.size(1),
                                           x.size(2), eps, out<T>(dx), out<A>(dweight), threads);
    });
  }

  void add_gated(const at::Tensor& y, const at::Tensor& gate, const at::Tensor& x,
                 int threads) const override {
    dispatch_compute_type(y.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      using A = kernels::Accumulator<T>;
      kernels::add_gated<T>(in<T>(y), gate.defined() ? in<A>(gate) : nullptr, x.size(2), x.size(0),
                            x.size(1), x.size(2), out<A>(x), threads);
    });
  }

  void add_gated_backward(const at::Tensor& dx, const at::Tensor& y, const at::Tensor& gate,
                          const at::Tensor& dy, const at::Tensor& dgate,
                          int threads) const override {
    dispatch_compute_type(y.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      using A = kernels::Accumulator<T>;
      kernels::add_gated_backward<T>(in<A>(dx), in<T>(y), in<A>(gate), y.size(2), y.size(0),
                                     y.size(1), y.size(2), out<T>(dy), out<A>(dgate), threads);
    });
  }

  void gelu(const at::Tensor& x, const at::Tensor& y, int threads) const override {
    dispatch_compute_type(x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      kernels::gelu_tanh<T>(in<T>(x), x.numel(), out<T>(y), threads);
    });
  }

  void gelu_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx,
                     int threads) const override {
    dispatch_compute_type(x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      kernels::gelu_tanh_backward<T>(in<T>(dy), in<T>(x), x.numel(), out<T>(dx), threads);
    });
  }
};

}  // namespace

const RowOps& host_row_ops() {
  static const HostRowOps ops;
  return ops;
}

}  // namespace sprocket::models

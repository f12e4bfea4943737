#include <cmath>

#include "base/error.h"
#include "kernels/elementwise.h"
#include "kernels/row_kernels.h"

namespace sprocket::kernels {
namespace {

template <class A>
struct Moments {
  A mean;
  A inverse_deviation;
};

template <class A>
SPROCKET_INLINE Moments<A> moments_of(const A* x, int64_t dim, A eps) {
  Lanes<A> sums{};
  for_each_vector<A>(dim, SPROCKET_STEP({ sums += load(x + j, lanes); }));
  const A mean = sum_of_lanes<A>(sums) / static_cast<A>(dim);
  Lanes<A> squares{};
  int64_t j = 0;
  for (; j + kLanes<A> <= dim; j += kLanes<A>) {
    const Lanes<A> centred = load(x + j) - mean;
    squares += centred * centred;
  }
  A square = sum_of_lanes<A>(squares);
  for (; j < dim; ++j) square += (x[j] - mean) * (x[j] - mean);
  return {mean, 1 / std::sqrt(square / static_cast<A>(dim) + eps)};
}

template <class T>
struct LayerNormKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static void run(const A* x, const A* scale, const A* shift, A base, int64_t rows,
                                  int64_t dim, A eps, T* y) {
    for (int64_t row = 0; row < rows; ++row, x += dim, y += dim) {
      const Moments<A> m = moments_of(x, dim, eps);
      for_each_vector<A>(
          dim, SPROCKET_STEP({
            const Lanes<A> normal = (load(x + j, lanes) - m.mean) * m.inverse_deviation;
            store(y + j, normal * (load(scale + j, lanes) + base) + load(shift + j, lanes), lanes);
          }));
    }
  }
};

// dshift and dscale of the chunk are added to `partial`, in this order.
template <class T>
struct LayerNormBackwardKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static void run(const T* dy, const A* x, const A* scale, A base, int64_t rows,
                                  int64_t dim, A eps, A* dx, A* partial) {
    A* dscale = partial;
    A* dshift = partial + dim;
    for (int64_t row = 0; row < rows; ++row, x += dim, dy += dim, dx += dim) {
      const Moments<A> m = moments_of(x, dim, eps);
      Lanes<A> sums{}, products{};
      for_each_vector<A>(dim, SPROCKET_STEP({
                           const Lanes<A> normal =
                               (load(x + j, lanes) - m.mean) * m.inverse_deviation;
                           const Lanes<A> gradient = load(dy + j, lanes);
                           const Lanes<A> scaled = gradient * (load(scale + j, lanes) + base);
                           sums += scaled;
                           products += scaled * normal;
                           store(dscale + j, load(dscale + j, lanes) + gradient * normal, lanes);
                           store(dshift + j, load(dshift + j, lanes) + gradient, lanes);
                         }));
      const A mean = sum_of_lanes<A>(sums) / static_cast<A>(dim);
      const A slope = sum_of_lanes<A>(products) / static_cast<A>(dim);
      for_each_vector<A>(
          dim, SPROCKET_STEP({
            const Lanes<A> normal = (load(x + j, lanes) - m.mean) * m.inverse_deviation;
            const Lanes<A> scaled = load(dy + j, lanes) * (load(scale + j, lanes) + base);
            store(dx + j,
                  load(dx + j, lanes) + (scaled - mean - normal * slope) * m.inverse_deviation,
                  lanes);
          }));
    }
  }
};

template <class T>
SPROCKET_INLINE Accumulator<T> inverse_root_mean_square(const T* x, int64_t dim,
                                                        Accumulator<T> eps) {
  using A = Accumulator<T>;
  Lanes<A> squares{};
  for_each_vector<A>(dim, SPROCKET_STEP({
                       const Lanes<A> value = load(x + j, lanes);
                       squares += value * value;
                     }));
  return 1 / std::sqrt(sum_of_lanes<A>(squares) / static_cast<A>(dim) + eps);
}

// In place; direction 1 rotates, -1 rotates back.
template <class A>
SPROCKET_INLINE void rotate_row(A* row, int64_t dim, const A* cos, const A* sin, int64_t head_dim,
                                A direction) {
  for (int64_t head = 0; head < dim; head += head_dim) {
    A* pairs = row + head;
    for (int64_t i = 0; i < head_dim / 2; ++i) {
      const A a = pairs[2 * i], b = pairs[2 * i + 1], c = cos[i], s = direction * sin[i];
      pairs[2 * i] = a * c - b * s;
      pairs[2 * i + 1] = a * s + b * c;
    }
  }
}

template <class T>
struct RmsNormKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static void run(const T* x, const A* weight, const A* cos, const A* sin,
                                  int64_t head_dim, int64_t rows, int64_t dim, A eps, T* y,
                                  A* buffer) {
    for (int64_t row = 0; row < rows; ++row, x += dim, y += dim) {
      const A inverse = inverse_root_mean_square(x, dim, eps);
      for_each_vector<A>(dim, SPROCKET_STEP({
                           store(buffer + j, load(x + j, lanes) * inverse * load(weight + j, lanes),
                                 lanes);
                         }));
      if (cos != nullptr) {
        rotate_row(buffer, dim, cos + row * head_dim / 2, sin + row * head_dim / 2, head_dim, A{1});
      }
      for_each_vector<A>(dim, SPROCKET_STEP({ store(y + j, load(buffer + j, lanes), lanes); }));
    }
  }
};

template <class T>
struct RmsNormBackwardKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static void run(const T* dy, const T* x, const A* weight, const A* cos,
                                  const A* sin, int64_t head_dim, int64_t rows, int64_t dim, A eps,
                                  T* dx, A* dweight, A* buffer) {
    for (int64_t row = 0; row < rows; ++row, x += dim, dy += dim, dx += dim) {
      const A inverse = inverse_root_mean_square(x, dim, eps);
      for_each_vector<A>(dim, SPROCKET_STEP({ store(buffer + j, load(dy + j, lanes), lanes); }));
      if (cos != nullptr) {
        rotate_row(buffer, dim, cos + row * head_dim / 2, sin + row * head_dim / 2, head_dim,
                   A{-1});
      }
      Lanes<A> products{};
      for_each_vector<A>(dim, SPROCKET_STEP({
                           const Lanes<A> normal = load(x + j, lanes) * inverse,
                                          gradient = load(buffer + j, lanes);
                           products += gradient * load(weight + j, lanes) * normal;
                           store(dweight + j, load(dweight + j, lanes) + gradient * normal, lanes);
                         }));
      const A slope = sum_of_lanes<A>(products) / static_cast<A>(dim);
      for_each_vector<A>(dim, SPROCKET_STEP({
                           const Lanes<A> normal = load(x + j, lanes) * inverse;
                           const Lanes<A> scaled =
                               load(buffer + j, lanes) * load(weight + j, lanes);
                           store(dx + j, (scaled - normal * slope) * inverse, lanes);
                         }));
    }
  }
};

template <class A>
void check_rotation(const Rotation<A>& rotation, int64_t dim) {
  SPROCKET_CHECK(
      rotation.cos == nullptr || (rotation.sin != nullptr && rotation.head_dim > 0 &&
                                  rotation.head_dim % 2 == 0 && dim % rotation.head_dim == 0),
      "heads of {} channels in {}", rotation.head_dim, dim);
}

template <class A>
const A* at_row(const A* table, int64_t row, int64_t head_dim) {
  return table == nullptr ? nullptr : table + row * (head_dim / 2);
}

}  // namespace

template <class T>
void layer_norm(const Accumulator<T>* x, const RowAffine<Accumulator<T>>& affine, int64_t batch,
                int64_t rows, int64_t dim, double eps, T* y, int threads) {
  using A = Accumulator<T>;
  for_row_chunks(batch, rows, threads, [&](int64_t b, int64_t row, int64_t count) {
    const int64_t first = (b * rows + row) * dim, vector = b * affine.sample_stride;
    run_on_isa<LayerNormKernel<T>>(x + first, affine.scale + vector, affine.shift + vector,
                                   static_cast<A>(affine.base), count, dim, static_cast<A>(eps),
                                   y + first);
  });
}

template <class T>
void layer_norm_backward(const T* dy, const Accumulator<T>* x,
                         const RowAffine<Accumulator<T>>& affine, int64_t batch, int64_t rows,
                         int64_t dim, double eps, Accumulator<T>* dx, Accumulator<T>* dscale,
                         Accumulator<T>* dshift, int threads) {
  using A = Accumulator<T>;
  sum_over_rows(batch, rows, dim, std::array<A*, 2>{dscale, dshift}, affine.sample_stride, threads,
                [&](int64_t b, int64_t row, int64_t count, A* partial) {
                  const int64_t first = (b * rows + row) * dim;
                  run_on_isa<LayerNormBackwardKernel<T>>(dy + first, x + first,
                                                         affine.scale + b * affine.sample_stride,
                                                         static_cast<A>(affine.base), count, dim,
                                                         static_cast<A>(eps), dx + first, partial);
                });
}

template <class T>
void rms_norm_rotate(const T* x, const Accumulator<T>* weight,
                     const Rotation<Accumulator<T>>& rotation, int64_t batch, int64_t rows,
                     int64_t dim, double eps, T* y, int threads) {
  using A = Accumulator<T>;
  check_rotation(rotation, dim);
  for_row_chunks(batch, rows, threads, [&](int64_t b, int64_t row, int64_t count) {
    const int64_t first = (b * rows + row) * dim;
    std::vector<A> buffer(dim);
    run_on_isa<RmsNormKernel<T>>(x + first, weight, at_row(rotation.cos, row, rotation.head_dim),
                                 at_row(rotation.sin, row, rotation.head_dim), rotation.head_dim,
                                 count, dim, static_cast<A>(eps), y + first, buffer.data());
  });
}

template <class T>
void rms_norm_rotate_backward(const T* dy, const T* x, const Accumulator<T>* weight,
                              const Rotation<Accumulator<T>>& rotation, int64_t batch, int64_t rows,
                              int64_t dim, double eps, T* dx, Accumulator<T>* dweight,
                              int threads) {
  using A = Accumulator<T>;
  check_rotation(rotation, dim);
  sum_over_rows(batch, rows, dim, std::array<A*, 1>{dweight}, 0, threads,
                [&](int64_t b, int64_t row, int64_t count, A* partial) {
                  const int64_t first = (b * rows + row) * dim;
                  std::vector<A> buffer(dim);
                  run_on_isa<RmsNormBackwardKernel<T>>(
                      dy + first, x + first, weight, at_row(rotation.cos, row, rotation.head_dim),
                      at_row(rotation.sin, row, rotation.head_dim), rotation.head_dim, count, dim,
                      static_cast<A>(eps), dx + first, partial, buffer.data());
                });
}

#define SPROCKET_INSTANTIATE_NORMS(T)                                                           \
  template void layer_norm<T>(const Accumulator<T>*, const RowAffine<Accumulator<T>>&, int64_t, \
                              int64_t, int64_t, double, T*, int);                               \
  template void layer_norm_backward<T>(                                                         \
      const T*, const Accumulator<T>*, const RowAffine<Accumulator<T>>&, int64_t, int64_t,      \
      int64_t, double, Accumulator<T>*, Accumulator<T>*, Accumulator<T>*, int);                 \
  template void rms_norm_rotate<T>(const T*, const Accumulator<T>*,                             \
                                   const Rotation<Accumulator<T>>&, int64_t, int64_t, int64_t,  \
                                   double, T*, int);                                            \
  template void rms_norm_rotate_backward<T>(const T*, const T*, const Accumulator<T>*,          \
                                            const Rotation<Accumulator<T>>&, int64_t, int64_t,  \
                                            int64_t, double, T*, Accumulator<T>*, int);
SPROCKET_INSTANTIATE_NORMS(double)
SPROCKET_INSTANTIATE_NORMS(float)
SPROCKET_INSTANTIATE_NORMS(BFloat16)

}  // namespace sprocket::kernels

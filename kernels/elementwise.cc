#include "kernels/elementwise.h"

#include <cmath>

#include "base/error.h"
#include "kernels/adamw_factors.h"
#include "kernels/row_kernels.h"

namespace sprocket::kernels {
namespace {

constexpr int64_t kChunk = 4096;  // elements of a task

template <class T>
struct AddGatedKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static void run(const T* y, const A* gate, int64_t rows, int64_t dim, A* x) {
    for (int64_t row = 0; row < rows; ++row, x += dim, y += dim) {
      for_each_vector<A>(dim, SPROCKET_STEP({
                           const Lanes<A> added = load(y + j, lanes) * load(gate + j, lanes);
                           store(x + j, load(x + j, lanes) + added, lanes);
                         }));
    }
  }
};

template <class T>
struct AddKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static void run(const T* y, int64_t count, A* x) {
    for_each_vector<A>(
        count, SPROCKET_STEP({ store(x + j, load(x + j, lanes) + load(y + j, lanes), lanes); }));
  }
};

template <class T>
struct ConvertKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static void run(const A* x, int64_t count, T* y) {
    for_each_vector<A>(count, SPROCKET_STEP({ store(y + j, load(x + j, lanes), lanes); }));
  }
};

template <class T>
struct AddGatedBackwardKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static void run(const A* dx, const T* y, const A* gate, int64_t rows, int64_t dim,
                                  T* dy, A* dgate) {
    for (int64_t row = 0; row < rows; ++row, dx += dim, y += dim, dy += dim) {
      for_each_vector<A>(dim, SPROCKET_STEP({
                           const Lanes<A> gradient = load(dx + j, lanes);
                           store(dgate + j, load(dgate + j, lanes) + gradient * load(y + j, lanes),
                                 lanes);
                           store(dy + j, gradient * load(gate + j, lanes), lanes);
                         }));
    }
  }
};

constexpr double kRootTwoOverPi = 0.79788456080286535588;
constexpr double kCubic = 0.044715;

// 1 / (1 + exp(-2 u)). Beyond +-24 it is exactly 0 or 1 and x is clamped, so that x^3 stays finite.
template <class A>
SPROCKET_INLINE Lanes<A> gelu_share(Lanes<A> x) {
  const Lanes<A> u = x * (x * x * static_cast<A>(-2 * kRootTwoOverPi * kCubic) +
                          static_cast<A>(-2 * kRootTwoOverPi));
  return A{1} / (exp_of_lanes(u) + A{1});
}

template <class A>
SPROCKET_INLINE Lanes<A> clamp_for_gelu(Lanes<A> x) {
  x = x > A{24} ? Lanes<A>{} + A{24} : x;
  return x < A{-24} ? Lanes<A>{} - A{24} : x;
}

template <class T>
struct GeluKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static void run(const T* x, int64_t count, T* y) {
    for_each_vector<A>(count, SPROCKET_STEP({
                         const Lanes<A> value = load(x + j, lanes);
                         store(y + j, value * gelu_share<A>(clamp_for_gelu<A>(value)), lanes);
                       }));
  }
};

template <class T>
struct GeluBackwardKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static void run(const T* dy, const T* x, int64_t count, T* dx) {
    for_each_vector<A>(count, SPROCKET_STEP({
                         const Lanes<A> value = clamp_for_gelu<A>(load(x + j, lanes));
                         const Lanes<A> share = gelu_share<A>(value);
                         const Lanes<A> slope =
                             value * value * static_cast<A>(6 * kRootTwoOverPi * kCubic) +
                             static_cast<A>(2 * kRootTwoOverPi);
                         const Lanes<A> derivative = share + value * share * (A{1} - share) * slope;
                         store(dx + j, load(dy + j, lanes) * derivative, lanes);
                       }));
  }
};

template <class A>
struct AdamWKernel {
  SPROCKET_INLINE static void run(AdamWFactors<A> f, const A* gradient, int64_t count, A* parameter,
                                  A* mean, A* square) {
    for (int64_t i = 0; i < count; ++i) {
      const A g = gradient[i] * f.scale;
      const A m = mean[i] + f.one_minus_beta1 * (g - mean[i]);
      const A v = square[i] * f.beta2 + f.one_minus_beta2 * g * g;
      mean[i] = m;
      square[i] = v;
      A root;
      if constexpr (std::is_same_v<A, float>) {
        root = __builtin_sqrtf(v);
      } else {
        root = __builtin_sqrt(v);
      }
      parameter[i] = parameter[i] * f.decay - f.rate * (m / (root * f.inverse_root + f.eps));
    }
  }
};

template <class A>
struct SquaresKernel {
  SPROCKET_INLINE static void run(const A* values, int64_t count, double* sum) {
    double lanes[16] = {};
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
      for (int lane = 0; lane < 16; ++lane) {
        lanes[lane] += static_cast<double>(values[i + lane]) * values[i + lane];
      }
    }
    for (; i < count; ++i) lanes[i % 16] += static_cast<double>(values[i]) * values[i];
    *sum = 0;
    for (const double lane : lanes) *sum += lane;
  }
};

// task(first, count) for every kChunk elements.
template <class Task>
void for_chunks(int64_t count, int threads, Task task) {
#pragma omp parallel for num_threads(threads)
  for (int64_t first = 0; first < count; first += kChunk) {
    task(first, std::min(kChunk, count - first));
  }
}

}  // namespace

template <class T>
void add_gated(const T* y, const Accumulator<T>* gate, int64_t gate_stride, int64_t batch,
               int64_t rows, int64_t dim, Accumulator<T>* x, int threads) {
  if (gate == nullptr) {
    for_chunks(batch * rows * dim, threads, [&](int64_t first, int64_t count) {
      run_on_isa<AddKernel<T>>(y + first, count, x + first);
    });
    return;
  }
  for_row_chunks(batch, rows, threads, [&](int64_t b, int64_t row, int64_t count) {
    const int64_t first = (b * rows + row) * dim;
    run_on_isa<AddGatedKernel<T>>(y + first, gate + b * gate_stride, count, dim, x + first);
  });
}

template <class T>
void add_gated_backward(const Accumulator<T>* dx, const T* y, const Accumulator<T>* gate,
                        int64_t gate_stride, int64_t batch, int64_t rows, int64_t dim, T* dy,
                        Accumulator<T>* dgate, int threads) {
  using A = Accumulator<T>;
  if (gate == nullptr) {
    for_chunks(batch * rows * dim, threads, [&](int64_t first, int64_t count) {
      run_on_isa<ConvertKernel<T>>(dx + first, count, dy + first);
    });
    return;
  }
  sum_over_rows(batch, rows, dim, std::array<A*, 1>{dgate}, gate_stride, threads,
                [&](int64_t b, int64_t row, int64_t count, A* partial) {
                  const int64_t first = (b * rows + row) * dim;
                  run_on_isa<AddGatedBackwardKernel<T>>(dx + first, y + first,
                                                        gate + b * gate_stride, count, dim,
                                                        dy + first, partial);
                });
}

template <class T>
void gelu_tanh(const T* x, int64_t count, T* y, int threads) {
  for_chunks(count, threads, [&](int64_t first, int64_t part) {
    run_on_isa<GeluKernel<T>>(x + first, part, y + first);
  });
}

template <class T>
void gelu_tanh_backward(const T* dy, const T* x, int64_t count, T* dx, int threads) {
  for_chunks(count, threads, [&](int64_t first, int64_t part) {
    run_on_isa<GeluBackwardKernel<T>>(dy + first, x + first, part, dx + first);
  });
}

template <class A>
void adamw_update(const AdamWStep& step, const A* gradient, int64_t count, A* parameter, A* mean,
                  A* square, int threads) {
  SPROCKET_CHECK_GE(step.step, 1);
  const AdamWFactors<A> factors = adamw_factors<A>(step);
  for_chunks(count, threads, [&](int64_t first, int64_t part) {
    run_on_isa<AdamWKernel<A>>(factors, gradient + first, part, parameter + first, mean + first,
                               square + first);
  });
}

template <class A>
double sum_of_squares(const A* values, int64_t count, int threads) {
  std::vector<double> partials((count + kChunk - 1) / kChunk);
  for_chunks(count, threads, [&](int64_t first, int64_t part) {
    run_on_isa<SquaresKernel<A>>(values + first, part, partials.data() + first / kChunk);
  });
  double sum = 0;
  for (const double partial : partials) sum += partial;
  return sum;
}

#define SPROCKET_INSTANTIATE_ELEMENTWISE(T)                                                       \
  template void add_gated<T>(const T*, const Accumulator<T>*, int64_t, int64_t, int64_t, int64_t, \
                             Accumulator<T>*, int);                                               \
  template void add_gated_backward<T>(const Accumulator<T>*, const T*, const Accumulator<T>*,     \
                                      int64_t, int64_t, int64_t, int64_t, T*, Accumulator<T>*,    \
                                      int);                                                       \
  template void gelu_tanh<T>(const T*, int64_t, T*, int);                                         \
  template void gelu_tanh_backward<T>(const T*, const T*, int64_t, T*, int);
SPROCKET_INSTANTIATE_ELEMENTWISE(double)
SPROCKET_INSTANTIATE_ELEMENTWISE(float)
SPROCKET_INSTANTIATE_ELEMENTWISE(BFloat16)

#define SPROCKET_INSTANTIATE_OPTIMIZER(A)                                              \
  template void adamw_update<A>(const AdamWStep&, const A*, int64_t, A*, A*, A*, int); \
  template double sum_of_squares<A>(const A*, int64_t, int);
SPROCKET_INSTANTIATE_OPTIMIZER(float)
SPROCKET_INSTANTIATE_OPTIMIZER(double)

}  // namespace sprocket::kernels

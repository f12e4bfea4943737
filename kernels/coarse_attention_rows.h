// Softmax and its gradient on one row of coarse scores; kernels for run_on_isa.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/lanes.h"

namespace sprocket::kernels::internal {

// p[j] = exp(s[j] - largest) * inverse
template <class A>
struct SoftmaxRow {
  A largest, inverse;
};

// In place: scores become probabilities. `result` may be null.
template <class A>
struct RowSoftmaxKernel {
  SPROCKET_INLINE static void run(A* row, int64_t count, SoftmaxRow<A>* result) {
    const int64_t whole = count - count % kLanes<A>;
    const int64_t rest = count - whole;
    Lanes<A> maxima = broadcast(-std::numeric_limits<A>::infinity());
    for (int64_t j = 0; j < whole; j += kLanes<A>) {
      const Lanes<A> x = load(row + j);
      maxima = x > maxima ? x : maxima;
    }
    A largest = largest_of_lanes<A>(maxima);
    for (int64_t j = whole; j < count; ++j) largest = row[j] > largest ? row[j] : largest;
    Lanes<A> sums{};
    for (int64_t j = 0; j < whole; j += kLanes<A>) {
      const Lanes<A> e = exp_of_lanes(load(row + j) - largest);
      store(row + j, e);
      sums += e;
    }
    if (rest > 0) {
      store_first(row + whole, exp_of_lanes(load_first(row + whole, rest) - largest), rest);
      sums += load_first(row + whole, rest);
    }
    const A inverse = 1 / sum_of_lanes<A>(sums);
    for (int64_t j = 0; j < count; ++j) row[j] *= inverse;
    if (result != nullptr) *result = {largest, inverse};
  }
};

// In place: scores of some columns become the probabilities that RowSoftmaxKernel found.
template <class A>
struct RowProbabilityKernel {
  SPROCKET_INLINE static void run(A* row, int64_t count, SoftmaxRow<A> softmax) {
    const int64_t whole = count - count % kLanes<A>;
    const int64_t rest = count - whole;
    for (int64_t j = 0; j < whole; j += kLanes<A>) {
      store(row + j, exp_of_lanes(load(row + j) - softmax.largest) * softmax.inverse);
    }
    if (rest > 0) {
      const Lanes<A> e = exp_of_lanes(load_first(row + whole, rest) - softmax.largest);
      store_first(row + whole, e * softmax.inverse, rest);
    }
  }
};

// delta = sum(p * dp)
template <class A>
struct RowDeltaKernel {
  SPROCKET_INLINE static void run(const A* p, const A* dp, int64_t count, A* delta) {
    const int64_t whole = count - count % kLanes<A>;
    Lanes<A> sums{};
    for (int64_t j = 0; j < whole; j += kLanes<A>) sums += load(p + j) * load(dp + j);
    sums += load_first(p + whole, count - whole) * load_first(dp + whole, count - whole);
    *delta = sum_of_lanes<A>(sums);
  }
};

// dp becomes ds = p * (dp - delta).
template <class A>
struct RowGradientKernel {
  SPROCKET_INLINE static void run(const A* p, A* dp, int64_t count, A delta) {
    for (int64_t j = 0; j < count; ++j) dp[j] = p[j] * (dp[j] - delta);
  }
};

}  // namespace sprocket::kernels::internal

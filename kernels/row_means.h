// Means over adjacent rows and their gradients, for kernels dispatched by isa.h.
#pragma once

#include <cstdint>

#include "kernels/row_kernels.h"
#include "kernels/segment_attention.h"

namespace sprocket::kernels {

// mean = (sum of the rows, ascending, in the accumulator type) / divisor. To: T or Accumulator<T>.
template <class T, class To>
SPROCKET_INLINE void mean_of_rows(const T* x, int64_t row_stride, int64_t rows, int64_t head_dim,
                                  Accumulator<T> divisor, To* mean) {
  for_each_vector<Accumulator<T>>(head_dim, SPROCKET_STEP({
                                    Lanes<Accumulator<T>> sum{};
                                    for (int64_t row = 0; row < rows; ++row)
                                      sum += load(x + row * row_stride + j, lanes);
                                    store(mean + j, sum / divisor, lanes);
                                  }));
}

// Every row of dx += gradient / divisor.
template <class A>
SPROCKET_INLINE void add_share_to_rows(const A* gradient, int64_t head_dim, A divisor, A* dx,
                                       int64_t row_stride, int64_t rows) {
  for_each_vector<A>(head_dim, SPROCKET_STEP({
                       const Lanes<A> share = load(gradient + j, lanes) / divisor;
                       for (int64_t row = 0; row < rows; ++row) {
                         A* to = dx + row * row_stride + j;
                         store(to, load(static_cast<const A*>(to), lanes) + share, lanes);
                       }
                     }));
}

}  // namespace sprocket::kernels

#include "kernels/coarse_combine.h"

#include <algorithm>

namespace sprocket::kernels {
namespace {

// Calls body(batch, head, block, &coarse row index) for every block, in parallel over blocks.
template <class Body>
void for_each_block(int batch, int heads, int64_t blocks, int threads, Body&& body) {
  const int64_t total = static_cast<int64_t>(batch) * heads * blocks;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t index = 0; index < total; ++index) {
    const int64_t batch_head = index / blocks;
    body(batch_head / heads, batch_head % heads, index % blocks, index);
  }
}

}  // namespace

template <class T>
void combine_coarse(HeadView<const Accumulator<T>> fine, HeadView<const T> gate,
                    const Accumulator<T>* coarse, std::span<const int64_t> offsets, int batch,
                    int heads, int head_dim, HeadView<T> out, int threads) {
  using A = Accumulator<T>;
  const int64_t blocks = static_cast<int64_t>(offsets.size()) - 1;
  for_each_block(batch, heads, blocks, threads,
                 [&](int64_t b, int64_t h, int64_t block, int64_t index) {
                   const A* mean = coarse + index * head_dim;
                   for (int64_t row = offsets[block]; row < offsets[block + 1]; ++row) {
                     const A* f = fine.row(b, row, h);
                     T* o = out.row(b, row, h);
                     if (gate.data) {
                       const T* g = gate.row(b, row, h);
                       for (int d = 0; d < head_dim; ++d)
                         o[d] = T(f[d] + static_cast<A>(g[d]) * mean[d]);
                     } else {
                       for (int d = 0; d < head_dim; ++d) o[d] = T(f[d] + mean[d]);
                     }
                   }
                 });
}

template <class T>
void combine_coarse_backward(HeadView<const T> dout, HeadView<const T> gate,
                             const Accumulator<T>* coarse, std::span<const int64_t> offsets,
                             int batch, int heads, int head_dim, Accumulator<T>* dcoarse,
                             HeadView<T> dgate, int threads) {
  using A = Accumulator<T>;
  const int64_t blocks = static_cast<int64_t>(offsets.size()) - 1;
  for_each_block(batch, heads, blocks, threads,
                 [&](int64_t b, int64_t h, int64_t block, int64_t index) {
                   const A* mean = coarse + index * head_dim;
                   A* sum = dcoarse + index * head_dim;
                   std::fill(sum, sum + head_dim, A(0));
                   for (int64_t row = offsets[block]; row < offsets[block + 1]; ++row) {
                     const T* d_out = dout.row(b, row, h);
                     if (gate.data) {
                       const T* g = gate.row(b, row, h);
                       for (int d = 0; d < head_dim; ++d)
                         sum[d] += static_cast<A>(d_out[d]) * static_cast<A>(g[d]);
                     } else {
                       for (int d = 0; d < head_dim; ++d) sum[d] += static_cast<A>(d_out[d]);
                     }
                     if (dgate.data) {
                       T* d_gate = dgate.row(b, row, h);
                       for (int d = 0; d < head_dim; ++d)
                         d_gate[d] = T(static_cast<A>(d_out[d]) * mean[d]);
                     }
                   }
                 });
}

#define SPROCKET_INSTANTIATE(T)                                                                   \
  template void combine_coarse<T>(HeadView<const Accumulator<T>>, HeadView<const T>,              \
                                  const Accumulator<T>*, std::span<const int64_t>, int, int, int, \
                                  HeadView<T>, int);                                              \
  template void combine_coarse_backward<T>(HeadView<const T>, HeadView<const T>,                  \
                                           const Accumulator<T>*, std::span<const int64_t>, int,  \
                                           int, int, Accumulator<T>*, HeadView<T>, int);
SPROCKET_INSTANTIATE(double)
SPROCKET_INSTANTIATE(float)
SPROCKET_INSTANTIATE(BFloat16)
#undef SPROCKET_INSTANTIATE

}  // namespace sprocket::kernels

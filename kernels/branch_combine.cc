#include "kernels/branch_combine.h"

#include <algorithm>

namespace sprocket::kernels {
namespace {

// Calls body(batch, head, block, coarse row index) for every block, in parallel.
template <class T, class Body>
void for_each_block(const Branches<T>& branches, Body&& body) {
  const int64_t blocks = static_cast<int64_t>(branches.offsets.size()) - 1;
  const int64_t total = int64_t{branches.batch} * branches.heads * blocks;
#pragma omp parallel for num_threads(branches.threads) schedule(static)
  for (int64_t index = 0; index < total; ++index) {
    const int64_t batch_head = index / blocks;
    body(batch_head / branches.heads, batch_head % branches.heads, index % blocks, index);
  }
}

// out[d] = a[d] * b[d], or a[d] without b.
template <class Out, class A, class B>
void multiply(const A* a, const B* b, int count, Out* out) {
  using Sum = Accumulator<Out>;
  if (b == nullptr) {
    for (int d = 0; d < count; ++d) out[d] = Out(static_cast<Sum>(a[d]));
  } else {
    for (int d = 0; d < count; ++d) out[d] = Out(static_cast<Sum>(a[d]) * static_cast<Sum>(b[d]));
  }
}

template <class T>
const T* row_or_null(const HeadView<const T>& view, int64_t b, int64_t row, int64_t h) {
  return view.data ? view.row(b, row, h) : nullptr;
}

}  // namespace

template <class T>
void combine_branches(const Branches<T>& x, HeadView<T> out) {
  using A = Accumulator<T>;
  for_each_block(x, [&](int64_t b, int64_t h, int64_t block, int64_t index) {
    const A* mean = x.coarse ? x.coarse + index * x.head_dim : nullptr;
    for (int64_t row = x.offsets[block]; row < x.offsets[block + 1]; ++row) {
      const A* fine = x.fine.row(b, row, h);
      const T* fine_gate = row_or_null(x.fine_gate, b, row, h);
      const T* gate = row_or_null(x.coarse_gate, b, row, h);
      T* o = out.row(b, row, h);
      for (int d = 0; d < x.head_dim; ++d) {
        A sum = fine_gate ? fine[d] * static_cast<A>(fine_gate[d]) : fine[d];
        if (mean) sum += gate ? static_cast<A>(gate[d]) * mean[d] : mean[d];
        o[d] = T(sum);
      }
    }
  });
}

template <class T>
void combine_branches_backward(const Branches<T>& x, HeadView<const T> dout,
                               const BranchGradients<T>& to) {
  using A = Accumulator<T>;
  for_each_block(x, [&](int64_t b, int64_t h, int64_t block, int64_t index) {
    const A* mean = x.coarse ? x.coarse + index * x.head_dim : nullptr;
    A* sum = to.dcoarse ? to.dcoarse + index * x.head_dim : nullptr;
    if (sum) std::fill_n(sum, x.head_dim, A(0));
    for (int64_t row = x.offsets[block]; row < x.offsets[block + 1]; ++row) {
      const T* d_out = dout.row(b, row, h);
      const T* gate = row_or_null(x.coarse_gate, b, row, h);
      for (int d = 0; sum && d < x.head_dim; ++d) {
        const A share = static_cast<A>(d_out[d]);
        sum[d] += gate ? share * static_cast<A>(gate[d]) : share;
      }
      if (to.dcoarse_gate.data) multiply(d_out, mean, x.head_dim, to.dcoarse_gate.row(b, row, h));
      if (to.dfine_gate.data) {
        multiply(d_out, x.fine.row(b, row, h), x.head_dim, to.dfine_gate.row(b, row, h));
      }
      if (to.dfine.data) {
        multiply(d_out, row_or_null(x.fine_gate, b, row, h), x.head_dim, to.dfine.row(b, row, h));
      }
    }
  });
}

#define SPROCKET_INSTANTIATE(T)                                                     \
  template void combine_branches<T>(const Branches<T>&, HeadView<T>);               \
  template void combine_branches_backward<T>(const Branches<T>&, HeadView<const T>, \
                                             const BranchGradients<T>&);
SPROCKET_INSTANTIATE(double)
SPROCKET_INSTANTIATE(float)
SPROCKET_INSTANTIATE(BFloat16)
#undef SPROCKET_INSTANTIATE

}  // namespace sprocket::kernels

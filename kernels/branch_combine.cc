#include "kernels/branch_combine.h"

#include <algorithm>

#include "kernels/row_kernels.h"

namespace sprocket::kernels {
namespace {

// A row per step; null: no such rows.
template <class T>
struct Rows {
  T* first = nullptr;
  int64_t stride = 0;

  SPROCKET_INLINE T* row(int64_t i) const { return first ? first + i * stride : nullptr; }
};

// The rows of one block and head.
template <class T>
struct BlockRows {
  using A = Accumulator<T>;
  int64_t rows = 0, dim = 0;
  Rows<const A> fine;
  Rows<const T> fine_gate;
  const A* mean = nullptr;
  Rows<const T> gate;
};

template <class T>
struct CombineKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static void run(BlockRows<T> x, Rows<T> out) {
    for (int64_t i = 0; i < x.rows; ++i) {
      const A* const fine = x.fine.row(i);
      const T* const fine_gate = x.fine_gate.row(i);
      const T* const gate = x.gate.row(i);
      T* const to = out.row(i);
      for_each_vector<A>(x.dim, SPROCKET_STEP({
                           Lanes<A> sum = load(fine + j, lanes);
                           if (fine_gate) sum *= load(fine_gate + j, lanes);
                           if (x.mean) {
                             Lanes<A> share = load(x.mean + j, lanes);
                             if (gate) share *= load(gate + j, lanes);
                             sum += share;
                           }
                           store(to + j, sum, lanes);
                         }));
    }
  }
};

template <class T>
struct GradientRows {
  Accumulator<T>* dcoarse = nullptr;
  Rows<T> dgate, dfine_gate, dfine;
};

template <class T>
struct CombineBackwardKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static void run(BlockRows<T> x, Rows<const T> dout, GradientRows<T> to) {
    for (int64_t i = 0; i < x.rows; ++i) {
      const T* const d = dout.row(i);
      const A* const fine = x.fine.row(i);
      const T* const fine_gate = x.fine_gate.row(i);
      const T* const gate = x.gate.row(i);
      T* const dgate = to.dgate.row(i);
      T* const dfine_gate = to.dfine_gate.row(i);
      T* const dfine = to.dfine.row(i);
      for_each_vector<A>(
          x.dim, SPROCKET_STEP({
            const Lanes<A> gradient = load(d + j, lanes);
            if (to.dcoarse) {
              const Lanes<A> share = gate ? gradient * load(gate + j, lanes) : gradient;
              store(to.dcoarse + j, load(to.dcoarse + j, lanes) + share, lanes);
            }
            if (dgate) store(dgate + j, gradient * load(x.mean + j, lanes), lanes);
            if (dfine_gate) store(dfine_gate + j, gradient * load(fine + j, lanes), lanes);
            if (dfine) {
              store(dfine + j, fine_gate ? gradient * load(fine_gate + j, lanes) : gradient, lanes);
            }
          }));
    }
  }
};

template <class T>
Rows<T> rows_of(const HeadView<T>& view, int64_t b, int64_t first, int64_t h) {
  if (view.data == nullptr) return {};
  return {view.row(b, first, h), view.row_stride};
}

// Calls body(batch, head, first row, rows, coarse row index) for every block, in parallel; heads
// innermost, for they share pages.
template <class T, class Body>
void for_each_block(const Branches<T>& x, Body&& body) {
  const int64_t blocks = static_cast<int64_t>(x.offsets.size()) - 1;
#pragma omp parallel for collapse(3) num_threads(x.threads) schedule(static)
  for (int64_t b = 0; b < x.batch; ++b) {
    for (int64_t block = 0; block < blocks; ++block) {
      for (int64_t h = 0; h < x.heads; ++h) {
        const int64_t first = x.offsets[block], rows = x.offsets[block + 1] - first;
        body(b, h, first, rows, (b * x.heads + h) * blocks + block);
      }
    }
  }
}

template <class T>
BlockRows<T> block_rows(const Branches<T>& x, int64_t b, int64_t h, int64_t first, int64_t rows,
                        int64_t index) {
  return {rows,
          x.head_dim,
          rows_of(x.fine, b, first, h),
          rows_of(x.fine_gate, b, first, h),
          x.coarse ? x.coarse + index * x.head_dim : nullptr,
          rows_of(x.coarse_gate, b, first, h)};
}

}  // namespace

template <class T>
void combine_branches(const Branches<T>& x, HeadView<T> out) {
  for_each_block(x, [&](int64_t b, int64_t h, int64_t first, int64_t rows, int64_t index) {
    run_on_isa<CombineKernel<T>>(block_rows(x, b, h, first, rows, index),
                                 rows_of(out, b, first, h));
  });
}

template <class T>
void combine_branches_backward(const Branches<T>& x, HeadView<const T> dout,
                               const BranchGradients<T>& to) {
  for_each_block(x, [&](int64_t b, int64_t h, int64_t first, int64_t rows, int64_t index) {
    Accumulator<T>* const dcoarse = to.dcoarse ? to.dcoarse + index * x.head_dim : nullptr;
    if (dcoarse) std::fill_n(dcoarse, x.head_dim, Accumulator<T>(0));
    const GradientRows<T> gradients{dcoarse, rows_of(to.dcoarse_gate, b, first, h),
                                    rows_of(to.dfine_gate, b, first, h),
                                    rows_of(to.dfine, b, first, h)};
    run_on_isa<CombineBackwardKernel<T>>(block_rows(x, b, h, first, rows, index),
                                         rows_of(dout, b, first, h), gradients);
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

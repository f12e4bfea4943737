#include "kernels/branch_combine.h"

#include <algorithm>

#include "kernels/row_kernels.h"

namespace sprocket::kernels {
namespace {

// Rows of all heads; without data: none.
template <class T>
struct Rows {
  T* first = nullptr;
  int64_t row_stride = 0, head_stride = 0;

  SPROCKET_INLINE T* at(int64_t row, int64_t head) const {
    return first ? first + row * row_stride + head * head_stride : nullptr;
  }
};

// The rows of one block.
template <class T>
struct BlockRows {
  using A = Accumulator<T>;
  int64_t rows = 0, heads = 0, dim = 0;
  Rows<const A> fine;
  Rows<const T> fine_gate;
  Rows<const A> means;  // the same of every row
  Rows<const T> gate;
};

template <class T>
struct CombineKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static void run(BlockRows<T> x, Rows<T> out) {
    for (int64_t i = 0; i < x.rows; ++i) {
      for (int64_t h = 0; h < x.heads; ++h) {
        const A* const fine = x.fine.at(i, h);
        const A* const mean = x.means.at(i, h);
        const T* const fine_gate = x.fine_gate.at(i, h);
        const T* const gate = x.gate.at(i, h);
        T* const to = out.at(i, h);
        for_each_vector<A>(x.dim, SPROCKET_STEP({
                             Lanes<A> sum = load(fine + j, lanes);
                             if (fine_gate) sum *= load(fine_gate + j, lanes);
                             if (mean) {
                               Lanes<A> share = load(mean + j, lanes);
                               if (gate) share *= load(gate + j, lanes);
                               sum += share;
                             }
                             store(to + j, sum, lanes);
                           }));
      }
    }
  }
};

template <class T>
struct GradientRows {
  Rows<Accumulator<T>> dmeans;
  Rows<T> dgate, dfine_gate, dfine;
};

template <class T>
struct CombineBackwardKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static void run(BlockRows<T> x, Rows<const T> dout, GradientRows<T> to) {
    for (int64_t i = 0; i < x.rows; ++i) {
      for (int64_t h = 0; h < x.heads; ++h) {
        const T* const d = dout.at(i, h);
        const A* const fine = x.fine.at(i, h);
        const A* const mean = x.means.at(i, h);
        const T* const fine_gate = x.fine_gate.at(i, h);
        const T* const gate = x.gate.at(i, h);
        A* const dmean = to.dmeans.at(i, h);
        T* const dgate = to.dgate.at(i, h);
        T* const dfine_gate = to.dfine_gate.at(i, h);
        T* const dfine = to.dfine.at(i, h);
        for_each_vector<A>(
            x.dim, SPROCKET_STEP({
              const Lanes<A> gradient = load(d + j, lanes);
              if (dmean) {
                const Lanes<A> share = gate ? gradient * load(gate + j, lanes) : gradient;
                store(dmean + j, load(dmean + j, lanes) + share, lanes);
              }
              if (dgate) store(dgate + j, gradient * load(mean + j, lanes), lanes);
              if (dfine_gate) store(dfine_gate + j, gradient * load(fine + j, lanes), lanes);
              if (dfine) {
                store(dfine + j, fine_gate ? gradient * load(fine_gate + j, lanes) : gradient,
                      lanes);
              }
            }));
      }
    }
  }
};

template <class T>
Rows<T> rows_of(const HeadView<T>& view, int64_t b, int64_t first) {
  if (view.data == nullptr) return {};
  return {view.row(b, first, 0), view.row_stride, view.head_stride};
}

template <class T, class A>
Rows<A> means_of(const Branches<T>& x, A* means, int64_t b, int64_t block) {
  if (means == nullptr) return {};
  const int64_t of_head = (static_cast<int64_t>(x.offsets.size()) - 1) * x.head_dim;
  return {means + b * x.heads * of_head + block * x.head_dim, 0, of_head};
}

template <class T>
BlockRows<T> block_rows(const Branches<T>& x, int64_t b, int64_t block) {
  const int64_t first = x.offsets[block];
  return {x.offsets[block + 1] - first,
          x.heads,
          x.head_dim,
          rows_of(x.fine, b, first),
          rows_of(x.fine_gate, b, first),
          means_of(x, x.coarse, b, block),
          rows_of(x.coarse_gate, b, first)};
}

// Calls body(batch, block) for every block, in parallel; heads are innermost, for a row's lie side
// by side.
template <class T, class Body>
void for_each_block(const Branches<T>& x, Body&& body) {
  const int64_t blocks = static_cast<int64_t>(x.offsets.size()) - 1;
#pragma omp parallel for collapse(2) num_threads(x.threads) schedule(static)
  for (int64_t b = 0; b < x.batch; ++b) {
    for (int64_t block = 0; block < blocks; ++block) body(b, block);
  }
}

}  // namespace

template <class T>
void combine_branches(const Branches<T>& x, HeadView<T> out) {
  for_each_block(x, [&](int64_t b, int64_t block) {
    run_on_isa<CombineKernel<T>>(block_rows(x, b, block), rows_of(out, b, x.offsets[block]));
  });
}

template <class T>
void combine_branches_backward(const Branches<T>& x, HeadView<const T> dout,
                               const BranchGradients<T>& to) {
  for_each_block(x, [&](int64_t b, int64_t block) {
    const int64_t first = x.offsets[block];
    const GradientRows<T> gradients{means_of(x, to.dcoarse, b, block),
                                    rows_of(to.dcoarse_gate, b, first),
                                    rows_of(to.dfine_gate, b, first), rows_of(to.dfine, b, first)};
    for (int64_t h = 0; gradients.dmeans.first && h < x.heads; ++h) {
      std::fill_n(gradients.dmeans.at(0, h), x.head_dim, Accumulator<T>(0));
    }
    run_on_isa<CombineBackwardKernel<T>>(block_rows(x, b, block), rows_of(dout, b, first),
                                         gradients);
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

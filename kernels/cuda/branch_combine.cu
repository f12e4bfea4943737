#include "kernels/cuda/argument_checks.h"
#include "kernels/cuda/branch_combine.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/octet.cuh"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kThreads = 128;

// A thread owns eight channels of a head in one block of rows, and goes through its rows.
struct Place {
  int64_t batch, block, head, channel;
  bool valid;
};

template <class T>
__device__ __forceinline__ Place place_of(const Branches<T>& x) {
  const int octets = x.head_dim / kOctet;
  const int item = static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x);
  return {blockIdx.x / x.blocks, blockIdx.x % x.blocks, item / octets, item % octets * kOctet,
          item < x.heads * octets};
}

template <class T>
struct Rows {
  T* first;  // null: no data
  int64_t stride;

  __device__ __forceinline__ Rows(const HeadView<T>& view, const Place& place, int64_t row)
      : first(view.data == nullptr ? nullptr
                                   : view.row(place.batch, row, place.head) + place.channel),
        stride(view.row_stride) {}
  __device__ __forceinline__ T* at(int64_t row) const { return first + row * stride; }
  __device__ __forceinline__ Octet load_or_one(int64_t row) const {
    return first == nullptr ? octet_of(1) : load_octet(at(row));
  }
};

template <class T>
__device__ __forceinline__ int64_t mean_at(const Branches<T>& x, const Place& place) {
  return ((place.batch * x.heads + place.head) * x.blocks + place.block) * x.head_dim +
         place.channel;
}

template <class T>
__global__ void __launch_bounds__(kThreads) combine_kernel(Branches<T> x, HeadView<T> out) {
  const Place place = place_of(x);
  if (!place.valid) return;
  const int64_t begin = x.offsets[place.block], rows = x.offsets[place.block + 1] - begin;
  const Rows<const float> fine(x.fine, place, begin);
  const Rows<const T> fine_gate(x.fine_gate, place, begin), gate(x.coarse_gate, place, begin);
  const Rows<T> to(out, place, begin);
  const Octet mean = x.coarse == nullptr ? octet_of(0) : load_octet(x.coarse + mean_at(x, place));
#pragma unroll 2
  for (int64_t row = 0; row < rows; ++row) {
    Octet sum = load_octet(fine.at(row));
    const Octet fine_share = fine_gate.load_or_one(row);
    if (x.coarse == nullptr) {
#pragma unroll
      for (int i = 0; i < kOctet; ++i) sum.v[i] *= fine_share.v[i];
    } else {
      const Octet share = gate.load_or_one(row);
#pragma unroll
      for (int i = 0; i < kOctet; ++i) {
        sum.v[i] = sum.v[i] * fine_share.v[i] + mean.v[i] * share.v[i];
      }
    }
    store_octet(to.at(row), sum);
  }
}

template <class T>
__device__ __forceinline__ void store_product(const Rows<T>& to, int64_t row, const Octet& a,
                                              const Octet& b) {
  Octet product;
#pragma unroll
  for (int i = 0; i < kOctet; ++i) product.v[i] = a.v[i] * b.v[i];
  store_octet(to.at(row), product);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    combine_backward_kernel(Branches<T> x, HeadView<const T> dout, BranchGradients<T> gradients) {
  const Place place = place_of(x);
  if (!place.valid) return;
  const int64_t begin = x.offsets[place.block], rows = x.offsets[place.block + 1] - begin;
  const Rows<const T> incoming(dout, place, begin);
  const Rows<const float> fine(x.fine, place, begin);
  const Rows<const T> fine_gate(x.fine_gate, place, begin), gate(x.coarse_gate, place, begin);
  const Rows<T> dgate(gradients.dcoarse_gate, place, begin),
      dfine_gate(gradients.dfine_gate, place, begin), dfine(gradients.dfine, place, begin);
  const Octet mean = x.coarse == nullptr ? octet_of(0) : load_octet(x.coarse + mean_at(x, place));
  Octet dmean = octet_of(0);
#pragma unroll 2
  for (int64_t row = 0; row < rows; ++row) {
    const Octet gradient = load_octet(incoming.at(row));
    if (gradients.dcoarse != nullptr) {
      const Octet share = gate.load_or_one(row);
#pragma unroll
      for (int i = 0; i < kOctet; ++i) dmean.v[i] += gradient.v[i] * share.v[i];
    }
    if (dgate.first != nullptr) store_product(dgate, row, gradient, mean);
    if (dfine_gate.first != nullptr) {
      store_product(dfine_gate, row, gradient, load_octet(fine.at(row)));
    }
    if (dfine.first != nullptr) store_product(dfine, row, gradient, fine_gate.load_or_one(row));
  }
  if (gradients.dcoarse != nullptr) store_octet(gradients.dcoarse + mean_at(x, place), dmean);
}

template <class T>
void check_branches(const Branches<T>& x, const char* kernel) {
  check_head_dim(x.head_dim, x.head_dim, kernel);
  check_view(x.fine, kernel, "fine");
  check_view(x.fine_gate, kernel, "fine_gate");
  check_view(x.coarse_gate, kernel, "coarse_gate");
  check_aligned(x.coarse, kernel, "coarse");
}

template <class T>
dim3 grid_for(const Branches<T>& x) {
  return dim3(grid_of(static_cast<int64_t>(x.batch) * x.blocks, 1),
              grid_of(static_cast<int64_t>(x.heads) * x.head_dim / kOctet, kThreads));
}

template <class T>
bool is_empty(const Branches<T>& x) {
  return x.batch == 0 || x.blocks == 0 || x.heads == 0;
}

}  // namespace

template <class T>
void combine_branches(const Branches<T>& x, HeadView<T> out, StreamView stream) {
  check_branches(x, "combine_branches");
  check_view(out, "combine_branches", "out");
  if (is_empty(x)) return;
  combine_kernel<T><<<grid_for(x), kThreads, 0, stream_of(stream)>>>(x, out);
  check_launch("combine_branches");
}

template <class T>
void combine_branches_backward(const Branches<T>& x, HeadView<const T> dout,
                               const BranchGradients<T>& gradients, StreamView stream) {
  const char* const name = "combine_branches_backward";
  check_branches(x, name);
  check_view(dout, name, "dout");
  check_aligned(gradients.dcoarse, name, "dcoarse");
  check_view(gradients.dcoarse_gate, name, "dcoarse_gate");
  check_view(gradients.dfine_gate, name, "dfine_gate");
  check_view(gradients.dfine, name, "dfine");
  if (is_empty(x)) return;
  combine_backward_kernel<T><<<grid_for(x), kThreads, 0, stream_of(stream)>>>(x, dout, gradients);
  check_launch(name);
}

#define SPROCKET_INSTANTIATE(T)                                                     \
  template void combine_branches<T>(const Branches<T>&, HeadView<T>, StreamView);   \
  template void combine_branches_backward<T>(const Branches<T>&, HeadView<const T>, \
                                             const BranchGradients<T>&, StreamView);
SPROCKET_INSTANTIATE(float)
SPROCKET_INSTANTIATE(__nv_bfloat16)
SPROCKET_INSTANTIATE(__half)
#undef SPROCKET_INSTANTIATE

}  // namespace sprocket::kernels::cuda

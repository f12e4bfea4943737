// The bridge between LibTorch tensors, communicator buffers and kernel views.
#pragma once

#include <ATen/core/Tensor.h>

#include "base/bfloat16.h"
#include "base/error.h"
#include "base/timeline.h"
#include "kernels/segment_attention.h"
#include "parallel/comm/communicator.h"
#include "parallel/exchange_plan.h"

namespace sprocket::parallel {

DType dtype_of(at::ScalarType type);  // throws InternalError for what no communicator carries

// The tensor must be contiguous; the buffer borrows its memory.
comm::Buffer buffer_of(const at::Tensor& tensor);

// What operations on the tensor are ordered by on this thread: the communicators' operations on it
// start after what is there, and `work.wait(stream_of(tensor))` orders it after them. On the
// processor that waits; on a device the host goes on.
StreamView stream_of(const at::Tensor& tensor);

// The communicators' operations on contiguous tensors, on their stream; counts in elements. The
// work of exchange_tensors is waited for before either tensor goes; the others have been ordered
// before the stream's next operations when they return.
[[nodiscard]] comm::Work exchange_tensors(comm::Communicator& group, const ExchangePlan& plan,
                                          const at::Tensor& sent, const at::Tensor& received);
void gather_tensors(comm::Communicator& group, const at::Tensor& own, const at::Tensor& all,
                    const std::vector<int64_t>& counts);
void reduce_scatter_tensors(comm::Communicator& group, const at::Tensor& all, const at::Tensor& own,
                            const std::vector<int64_t>& counts);

// Of an activity that reads or writes each of the tensors once; undefined ones are none.
template <class... Tensors>
Work moving(const Tensors&... tensors) {
  return {0, (0.0 + ... + (tensors.defined() ? static_cast<double>(tensors.nbytes()) : 0.0))};
}

// Accumulators are fp64 for fp64 and fp32 otherwise.
at::ScalarType accumulator_type(at::ScalarType type);

// A kernel's view of [B, rows, H, D]; the last dim must be contiguous.
template <class T>
kernels::HeadView<T> head_view(const at::Tensor& x_BLHD) {
  SPROCKET_CHECK_EQ(x_BLHD.dim(), 4);
  SPROCKET_CHECK(x_BLHD.stride(3) == 1 || x_BLHD.size(3) == 1, "rows of a head must be contiguous");
  return {static_cast<T*>(x_BLHD.data_ptr()), x_BLHD.stride(0), x_BLHD.stride(1), x_BLHD.stride(2)};
}

template <class T>
kernels::HeadView<const T> const_head_view(const at::Tensor& x_BLHD) {
  const auto view = head_view<T>(x_BLHD);
  return {view.data, view.batch_stride, view.row_stride, view.head_stride};
}

// Calls body(T{}) with the element type of the proof, the full and the half precision path.
template <class Body>
void dispatch_compute_type(at::ScalarType type, Body&& body) {
  if (type == at::kDouble) return body(double{});
  if (type == at::kFloat) return body(float{});
  if (type == at::kBFloat16) return body(BFloat16{});
  throw InternalError(
      fmt::format("attention: expected f64, f32 or bf16, found {}", at::toString(type)));
}

// The same for the accumulator type of `type`: double{} or float{}.
template <class Body>
void dispatch_accumulator_type(at::ScalarType type, Body&& body) {
  if (type == at::kDouble) return body(double{});
  return body(float{});
}

}  // namespace sprocket::parallel

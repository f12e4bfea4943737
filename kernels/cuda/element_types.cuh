// From a dtype to the type that device code computes with.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/dtype.h"
#include "base/error.h"
#include "kernels/head_view.h"

namespace sprocket::kernels::cuda {

template <class T>
HeadView<const T> typed(HeadView<const void> view) {
  return {static_cast<const T*>(view.data), view.batch_stride, view.row_stride, view.head_stride};
}
template <class T>
HeadView<T> typed(HeadView<void> view) {
  return {static_cast<T*>(view.data), view.batch_stride, view.row_stride, view.head_stride};
}

// body(T{}) for the element type T; InternalError for what is no floating-point type of devices.
template <class Body>
void with_element_type(DType dtype, Body body) {
  switch (dtype) {
    case DType::kF32:
      body(float{});
      return;
    case DType::kBF16:
      body(__nv_bfloat16{});
      return;
    case DType::kF16:
      body(__half{});
      return;
    case DType::kF64:
    case DType::kI64:
    case DType::kI32:
    case DType::kU16:
    case DType::kU8:
      break;
  }
  SPROCKET_CHECK(false, "expected elements of f32, bf16 or f16, found {}", name_of(dtype));
}

}  // namespace sprocket::kernels::cuda

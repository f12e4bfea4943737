#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {

DType dtype_of(at::ScalarType type) {
  if (type == at::kDouble) return DType::kF64;
  if (type == at::kFloat) return DType::kF32;
  if (type == at::kBFloat16) return DType::kBF16;
  if (type == at::kHalf) return DType::kF16;
  if (type == at::kLong) return DType::kI64;
  if (type == at::kInt) return DType::kI32;
  if (type == at::kByte) return DType::kU8;
  throw InternalError(fmt::format("no communicator carries {}", at::toString(type)));
}

comm::Buffer buffer_of(const at::Tensor& tensor) {
  SPROCKET_CHECK(tensor.is_contiguous(), "a communicator's buffer must be contiguous");
  return {tensor.data_ptr(), tensor.numel(), dtype_of(tensor.scalar_type())};
}

at::ScalarType accumulator_type(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace sprocket::parallel

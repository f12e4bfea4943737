#include "parallel/tensor_buffer.h"

#include "parallel/device/tensor_device.h"

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

StreamView stream_of(const at::Tensor& tensor) { return current_stream(tensor.device()); }

comm::Work exchange_tensors(comm::Communicator& group, const ExchangePlan& plan,
                            const at::Tensor& sent, const at::Tensor& received) {
  return group.exchange(buffer_of(sent), plan.send, buffer_of(received), plan.receive,
                        stream_of(sent));
}

void gather_tensors(comm::Communicator& group, const at::Tensor& own, const at::Tensor& all,
                    const std::vector<int64_t>& counts) {
  const StreamView stream = stream_of(all);
  group.all_gather(buffer_of(own), buffer_of(all), counts, stream).wait(stream);
}

void reduce_scatter_tensors(comm::Communicator& group, const at::Tensor& all, const at::Tensor& own,
                            const std::vector<int64_t>& counts) {
  const StreamView stream = stream_of(all);
  group.reduce_scatter(buffer_of(all), buffer_of(own), counts, stream).wait(stream);
}

at::ScalarType accumulator_type(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace sprocket::parallel

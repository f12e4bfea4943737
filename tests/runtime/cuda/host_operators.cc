#include "tests/runtime/cuda/host_operators.h"

#include <ATen/EmptyTensor.h>
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#include <torch/library.h>

#include "base/cuda_stream.h"

namespace c10::cuda::_internal {

// Of libc10_cuda.so, declared in no header: libtorch_cuda.so is what calls it.
void setHasPrimaryContext(bool (*answer)(DeviceIndex));

}  // namespace c10::cuda::_internal

namespace at {

// LibTorch asks for the class of this name; pinned memory is plain memory here.
struct CUDAHooks : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  bool isPinnedPtr(const void*) const override { return false; }
};

REGISTER_CUDA_HOOKS(CUDAHooks)

}  // namespace at

namespace sprocket::testing {
namespace {

class RuntimeAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = nullptr;
    if (bytes > 0) check_cuda(cudaMalloc(&memory, bytes), "cudaMalloc");
    return {memory, memory, &release, c10::Device(c10::kCUDA, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    check_cuda(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToDevice), "cudaMemcpy");
  }

 private:
  static void release(void* memory) { cudaFree(memory); }
};

RuntimeAllocator& allocator() {
  static RuntimeAllocator allocator;
  return allocator;
}

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &allocator(), c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride,
                         std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                         std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &allocator(),
                                           c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                           c10::dtype_or_default(dtype));
}

// The whole storage of `x` in host memory, seen as x sees it.
at::Tensor mirror(const at::Tensor& x) {
  const auto bytes = static_cast<int64_t>(x.storage().nbytes());
  const at::Tensor storage = at::empty({bytes}, at::kByte);
  if (bytes > 0) {
    check_cuda(cudaMemcpy(storage.data_ptr(), x.storage().data(), x.storage().nbytes(),
                          cudaMemcpyDeviceToHost),
               "cudaMemcpy");
  }
  const int64_t whole = bytes / static_cast<int64_t>(x.element_size());
  return storage.narrow(0, 0, whole * static_cast<int64_t>(x.element_size()))
      .view(x.scalar_type())
      .as_strided(x.sizes(), x.strides(), x.storage_offset());
}

at::Tensor& copy(at::Tensor& self, const at::Tensor& source, bool) {
  if (self.numel() == 0) return self;
  const at::Tensor host = source.is_cuda() ? mirror(source) : source;
  if (self.is_cpu()) return self.copy_(host);
  const at::Tensor to = mirror(self);
  to.copy_(host);
  check_cuda(cudaMemcpy(self.storage().mutable_data(), to.storage().data(), self.storage().nbytes(),
                        cudaMemcpyHostToDevice),
             "cudaMemcpy");
  return self;
}

// Of a result that an operator has made for itself, and that nothing else sees yet.
void give_sizes(const at::Tensor& x, at::IntArrayRef sizes) {
  c10::TensorImpl* const impl = x.unsafeGetTensorImpl();
  const auto bytes = c10::multiply_integers(sizes) * static_cast<int64_t>(x.element_size());
  impl->set_storage_keep_dtype(c10::Storage(c10::Storage::use_byte_size_t(), bytes,
                                            allocator().allocate(bytes), &allocator(), true));
  impl->set_sizes_contiguous(sizes);
}

at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& to) {
  if (self.sizes() != to.sizes()) give_sizes(to, self.sizes());
  to.copy_(self);
  return to;
}

void compute_on_the_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  at::native::cpu_fallback(op, stack);
}

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&compute_on_the_host>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", TORCH_FN(empty));
  library.impl("empty_strided", TORCH_FN(empty_strided));
  library.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  library.impl("view", TORCH_FN(at::native::view));
  library.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  library.impl("copy_", TORCH_FN(copy));
  library.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
}

}  // namespace

void use_host_operators() {
  c10::cuda::_internal::setHasPrimaryContext([](c10::DeviceIndex) { return true; });
}

}  // namespace sprocket::testing

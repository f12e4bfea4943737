// Memory: allocation, copies, sets. Everything happens at once, in the order of the calls.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "tests/cuda_simulator/error.h"
#include "tests/cuda_simulator/runtime.h"

using sprocket::cuda_simulator::DeviceMemory;
using sprocket::cuda_simulator::guarded;
using sprocket::cuda_simulator::Runtime;

namespace {

constexpr size_t kTotalBytes = size_t{80} << 30;

uint64_t number(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

// Where the host finds memory that `on_device` says is the device's; nullptr if it is not there.
std::byte* resolve(Runtime& runtime, const void* pointer, size_t bytes, bool on_device) {
  if (DeviceMemory::is_device_address(number(pointer)) != on_device) return nullptr;
  if (!on_device) return static_cast<std::byte*>(const_cast<void*>(pointer));
  return runtime.memory.find(number(pointer), bytes);
}

cudaError_t copy(Runtime& runtime, void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind == cudaMemcpyDefault) {
    to_device = DeviceMemory::is_device_address(number(to));
    from_device = DeviceMemory::is_device_address(number(from));
  }
  if (bytes == 0) return cudaSuccess;
  std::byte* target = resolve(runtime, to, bytes, to_device);
  const std::byte* source = resolve(runtime, from, bytes, from_device);
  if (target == nullptr || source == nullptr) return cudaErrorInvalidValue;
  std::memmove(target, source, bytes);
  return cudaSuccess;
}

cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return guarded([&](Runtime& runtime) { return copy(runtime, to, from, bytes, kind); });
}

cudaError_t copy_rows(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                      size_t height, cudaMemcpyKind kind) {
  return guarded([&](Runtime& runtime) {
    if (width > to_pitch || width > from_pitch) return cudaErrorInvalidPitchValue;
    for (size_t row = 0; row < height; ++row) {
      const cudaError_t error =
          copy(runtime, static_cast<std::byte*>(to) + row * to_pitch,
               static_cast<const std::byte*>(from) + row * from_pitch, width, kind);
      if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
  });
}

cudaError_t set_rows(void* to, size_t pitch, int value, size_t width, size_t height) {
  return guarded([&](Runtime& runtime) {
    for (size_t row = 0; row < height && width > 0; ++row) {
      std::byte* target = resolve(runtime, static_cast<std::byte*>(to) + row * pitch, width, true);
      if (target == nullptr) return cudaErrorInvalidValue;
      std::memset(target, value, width);
    }
    return cudaSuccess;
  });
}

cudaError_t allocate(void** result, size_t bytes) {
  return guarded([&](Runtime& runtime) {
    *result = nullptr;
    if (bytes == 0) return cudaSuccess;
    if (bytes > kTotalBytes - std::min(kTotalBytes, runtime.memory.used()))
      return cudaErrorMemoryAllocation;
    *result = reinterpret_cast<void*>(runtime.memory.allocate(bytes));
    return *result != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
  });
}

cudaError_t release(void* pointer) {
  return guarded([&](Runtime& runtime) {
    return pointer == nullptr || runtime.memory.free(number(pointer)) ? cudaSuccess
                                                                      : cudaErrorInvalidValue;
  });
}

cudaError_t symbol_address(Runtime& runtime, const void* symbol, void** result, size_t* bytes) {
  const auto found = runtime.variables.find(symbol);
  if (found == runtime.variables.end()) return cudaErrorInvalidSymbol;
  auto& [binary, name] = found->second;
  binary->module(runtime.memory, runtime.options.device.capability);
  *result = reinterpret_cast<void*>(binary->address(name));
  *bytes = binary->bytes(name);
  return cudaSuccess;
}

cudaError_t copy_symbol(const void* symbol, void* host, size_t count, size_t offset,
                        cudaMemcpyKind kind, bool to) {
  return guarded([&](Runtime& runtime) {
    void* at = nullptr;
    size_t bytes = 0;
    const cudaError_t error = symbol_address(runtime, symbol, &at, &bytes);
    if (error != cudaSuccess) return error;
    if (offset > bytes || count > bytes - offset) return cudaErrorInvalidValue;
    void* place = static_cast<std::byte*>(at) + offset;
    return to ? copy(runtime, place, host, count, kind) : copy(runtime, host, place, count, kind);
  });
}

cudaError_t allocate_host(void** result, size_t bytes) {
  *result = std::aligned_alloc(4096, (std::max<size_t>(bytes, 1) + 4095) / 4096 * 4096);
  return *result != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** result, size_t bytes) { return allocate(result, bytes); }
cudaError_t cudaMallocAsync(void** result, size_t bytes, cudaStream_t) {
  return allocate(result, bytes);
}
cudaError_t cudaFree(void* pointer) { return release(pointer); }
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) { return release(pointer); }
cudaError_t cudaMallocHost(void** result, size_t bytes) { return allocate_host(result, bytes); }
cudaError_t cudaHostAlloc(void** result, size_t bytes, unsigned) {
  return allocate_host(result, bytes);
}
cudaError_t cudaFreeHost(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}
cudaError_t cudaHostRegister(void*, size_t, unsigned) { return cudaSuccess; }
cudaError_t cudaHostUnregister(void*) { return cudaSuccess; }

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return copy(to, from, bytes, kind);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t) {
  return copy(to, from, bytes, kind);
}
cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                         size_t width, size_t height, cudaMemcpyKind kind) {
  return copy_rows(to, to_pitch, from, from_pitch, width, height, kind);
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t) {
  return copy_rows(to, to_pitch, from, from_pitch, width, height, kind);
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return set_rows(to, 0, value, bytes, 1);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  return set_rows(to, 0, value, bytes, 1);
}
cudaError_t cudaMemset2D(void* to, size_t pitch, int value, size_t width, size_t height) {
  return set_rows(to, pitch, value, width, height);
}
cudaError_t cudaMemset2DAsync(void* to, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t) {
  return set_rows(to, pitch, value, width, height);
}

cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, size_t bytes, size_t offset,
                               cudaMemcpyKind kind) {
  return copy_symbol(symbol, const_cast<void*>(from), bytes, offset, kind, true);
}
cudaError_t cudaMemcpyFromSymbol(void* to, const void* symbol, size_t bytes, size_t offset,
                                 cudaMemcpyKind kind) {
  return copy_symbol(symbol, to, bytes, offset, kind, false);
}
cudaError_t cudaGetSymbolAddress(void** result, const void* symbol) {
  size_t bytes = 0;
  return guarded([&](Runtime& runtime) { return symbol_address(runtime, symbol, result, &bytes); });
}
cudaError_t cudaGetSymbolSize(size_t* bytes, const void* symbol) {
  void* at = nullptr;
  return guarded([&](Runtime& runtime) { return symbol_address(runtime, symbol, &at, bytes); });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return guarded([&](Runtime& runtime) {
    *total = kTotalBytes;
    *free = kTotalBytes - std::min(kTotalBytes, runtime.memory.used());
    return cudaSuccess;
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* result, const void* pointer) {
  return guarded([&](Runtime& runtime) {
    *result = {};
    const bool on_device = runtime.memory.find(number(pointer), 1) != nullptr;
    result->type = on_device ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
    result->device = on_device ? 0 : cudaInvalidDeviceId;
    result->devicePointer = on_device ? const_cast<void*>(pointer) : nullptr;
    result->hostPointer = on_device ? nullptr : const_cast<void*>(pointer);
    return cudaSuccess;
  });
}

}  // extern "C"

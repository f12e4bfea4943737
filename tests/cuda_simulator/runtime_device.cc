// The device and its properties, errors and their names.
#include <cstring>

#include "tests/cuda_simulator/runtime.h"
#include "tests/cuda_simulator/tensor_map.h"

using sprocket::cuda_simulator::guarded;
using sprocket::cuda_simulator::Runtime;

namespace {

struct NamedError {
  cudaError_t error;
  const char* name;
  const char* text;
};

constexpr NamedError kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInvalidPitchValue, "cudaErrorInvalidPitchValue", "invalid pitch argument"},
    {cudaErrorInvalidSymbol, "cudaErrorInvalidSymbol", "invalid device symbol"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorMissingConfiguration, "cudaErrorMissingConfiguration",
     "missing launch configuration"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorInvalidClusterSize, "cudaErrorInvalidClusterSize", "invalid cluster size"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "not supported by the simulator"},
    {cudaErrorNotReady, "cudaErrorNotReady", "not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access"},
    {cudaErrorMisalignedAddress, "cudaErrorMisalignedAddress", "misaligned address"},
    {cudaErrorIllegalInstruction, "cudaErrorIllegalInstruction", "illegal instruction or operand"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "a kernel failed"},
    {cudaErrorLaunchTimeout, "cudaErrorLaunchTimeout", "a kernel did not end"},
    {cudaErrorSymbolNotFound, "cudaErrorSymbolNotFound", "named symbol not found"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const NamedError& named(cudaError_t error) {
  for (const NamedError& e : kErrors) {
    if (e.error == error) return e;
  }
  static constexpr NamedError kOther{cudaErrorUnknown, "an error without a name in the simulator",
                                     "an error without a name in the simulator"};
  return kOther;
}

cudaDeviceProp properties(const sprocket::cuda_simulator::Device& device) {
  cudaDeviceProp p{};
  std::strcpy(p.name, "CUDA simulator");
  p.totalGlobalMem = size_t{80} << 30;
  p.sharedMemPerBlock = device.shared_bytes_per_block;
  p.sharedMemPerBlockOptin = device.shared_bytes_per_block_optin;
  p.sharedMemPerMultiprocessor = device.shared_bytes_per_multiprocessor;
  p.reservedSharedMemPerBlock = 1024;
  p.regsPerBlock = p.regsPerMultiprocessor = 65536;
  p.warpSize = 32;
  p.maxThreadsPerBlock = 1024;
  p.maxThreadsPerMultiProcessor = 2048;
  p.maxBlocksPerMultiProcessor = 32;
  const int threads[] = {1024, 1024, 64}, grid[] = {0x7fffffff, 65535, 65535};
  std::memcpy(p.maxThreadsDim, threads, sizeof threads);
  std::memcpy(p.maxGridSize, grid, sizeof grid);
  p.totalConstMem = 65536;
  p.major = device.capability / 10;
  p.minor = device.capability % 10;
  p.multiProcessorCount = device.multiprocessors;
  p.l2CacheSize = 40 << 20;
  p.memoryBusWidth = 5120;
  p.asyncEngineCount = 3;
  p.concurrentKernels = p.unifiedAddressing = p.memoryPoolsSupported = 1;
  p.streamPrioritiesSupported = p.cooperativeLaunch = 1;
  p.clusterLaunch = device.capability >= 90;
  return p;
}

int attribute_of(const cudaDeviceProp& p, cudaDeviceAttr attribute, bool& known) {
  known = true;
  if (attribute == cudaDevAttrComputeCapabilityMajor) return p.major;
  if (attribute == cudaDevAttrComputeCapabilityMinor) return p.minor;
  if (attribute == cudaDevAttrMultiProcessorCount) return p.multiProcessorCount;
  if (attribute == cudaDevAttrMaxThreadsPerBlock) return p.maxThreadsPerBlock;
  if (attribute == cudaDevAttrMaxThreadsPerMultiProcessor) return p.maxThreadsPerMultiProcessor;
  if (attribute == cudaDevAttrMaxBlocksPerMultiprocessor) return p.maxBlocksPerMultiProcessor;
  if (attribute == cudaDevAttrMaxSharedMemoryPerBlock) return static_cast<int>(p.sharedMemPerBlock);
  if (attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin)
    return static_cast<int>(p.sharedMemPerBlockOptin);
  if (attribute == cudaDevAttrMaxSharedMemoryPerMultiprocessor)
    return static_cast<int>(p.sharedMemPerMultiprocessor);
  if (attribute == cudaDevAttrReservedSharedMemoryPerBlock)
    return static_cast<int>(p.reservedSharedMemPerBlock);
  if (attribute == cudaDevAttrMaxGridDimX) return p.maxGridSize[0];
  if (attribute == cudaDevAttrMaxGridDimY) return p.maxGridSize[1];
  if (attribute == cudaDevAttrMaxGridDimZ) return p.maxGridSize[2];
  if (attribute == cudaDevAttrMaxBlockDimX) return p.maxThreadsDim[0];
  if (attribute == cudaDevAttrMaxBlockDimY) return p.maxThreadsDim[1];
  if (attribute == cudaDevAttrMaxBlockDimZ) return p.maxThreadsDim[2];
  if (attribute == cudaDevAttrMaxRegistersPerBlock) return p.regsPerBlock;
  if (attribute == cudaDevAttrMaxRegistersPerMultiprocessor) return p.regsPerMultiprocessor;
  if (attribute == cudaDevAttrWarpSize) return p.warpSize;
  if (attribute == cudaDevAttrL2CacheSize) return p.l2CacheSize;
  if (attribute == cudaDevAttrClockRate || attribute == cudaDevAttrMemoryClockRate) return 1000000;
  if (attribute == cudaDevAttrGlobalMemoryBusWidth) return p.memoryBusWidth;
  if (attribute == cudaDevAttrCooperativeLaunch) return p.cooperativeLaunch;
  if (attribute == cudaDevAttrClusterLaunch) return p.clusterLaunch;
  if (attribute == cudaDevAttrMemoryPoolsSupported) return p.memoryPoolsSupported;
  if (attribute == cudaDevAttrUnifiedAddressing) return p.unifiedAddressing;
  known = false;
  return 0;
}

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return guarded([&](Runtime&) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; });
}
cudaError_t cudaInitDevice(int device, unsigned, unsigned) { return cudaSetDevice(device); }
cudaError_t cudaDeviceSynchronize() {
  return guarded([](Runtime&) { return cudaSuccess; });
}
cudaError_t cudaDeviceReset() {
  Runtime& runtime = Runtime::instance();
  const std::lock_guard lock(runtime.mutex);
  runtime.reset();
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* result, int device) {
  return guarded([&](Runtime& runtime) {
    if (device != 0) return cudaErrorInvalidDevice;
    *result = properties(runtime.options.device);
    return cudaSuccess;
  });
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return guarded([&](Runtime& runtime) {
    if (device != 0) return cudaErrorInvalidDevice;
    bool known = false;
    *value = attribute_of(properties(runtime.options.device), attribute, known);
    return known ? cudaSuccess : cudaErrorNotSupported;
  });
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* status) {
  return guarded([&](Runtime&) {
    const bool known = std::strcmp(symbol, "cuTensorMapEncodeTiled") == 0;
    *function = known ? reinterpret_cast<void*>(sprocket::cuda_simulator::encode_tiled) : nullptr;
    if (status != nullptr)
      *status = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return known ? cudaSuccess : cudaErrorSymbolNotFound;
  });
}
cudaError_t cudaGetDriverEntryPoint(const char* symbol, void** function, unsigned long long flags,
                                    cudaDriverEntryPointQueryResult* status) {
  return cudaGetDriverEntryPointByVersion(symbol, function, CUDART_VERSION, flags, status);
}

cudaError_t cudaGetLastError() { return Runtime::instance().take_last_error(true); }
cudaError_t cudaPeekAtLastError() { return Runtime::instance().take_last_error(false); }
const char* cudaGetErrorString(cudaError_t error) { return named(error).text; }
const char* cudaGetErrorName(cudaError_t error) { return named(error).name; }

}  // extern "C"

// Registration of kernels, their launch and their attributes.
#include <algorithm>
#include <cstring>

#include "tests/cuda_simulator/error.h"
#include "tests/cuda_simulator/runtime.h"

using sprocket::cuda_simulator::Extent;
using sprocket::cuda_simulator::FatBinary;
using sprocket::cuda_simulator::guarded;
using sprocket::cuda_simulator::Kernel;
using sprocket::cuda_simulator::LaunchShape;
using sprocket::cuda_simulator::Program;
using sprocket::cuda_simulator::Runtime;

namespace {

constexpr unsigned kMaxThreads = 1024, kMaxBlocks = 32, kReservedShared = 1024;

struct CallConfiguration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};
thread_local std::vector<CallConfiguration> call_configurations;

cudaError_t launch(Runtime& runtime, const void* function, const LaunchShape& shape,
                   void** arguments) {
  Kernel* kernel = runtime.find(function);
  if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
  const Program& program = runtime.program(*kernel);
  const auto& device = runtime.options.device;
  LaunchShape full = shape;
  if (program.cluster[0] != 0 && shape.cluster.count() == 1) {
    full.cluster = {program.cluster[0], program.cluster[1], program.cluster[2]};
  }
  const Extent& b = shape.block;
  const unsigned limit = program.max_threads != 0 ? program.max_threads : kMaxThreads;
  if (b.count() == 0 || b.count() > limit || b.x > 1024 || b.y > 1024 || b.z > 64) {
    return cudaErrorInvalidConfiguration;
  }
  const Extent& g = shape.grid;
  if (g.count() == 0 || g.x > 0x7fffffff || g.y > 65535 || g.z > 65535)
    return cudaErrorInvalidConfiguration;
  if (full.cluster.count() > 1 && device.capability < 90) return cudaErrorInvalidClusterSize;
  if (full.cluster.count() > 8 || g.x % full.cluster.x || g.y % full.cluster.y ||
      g.z % full.cluster.z) {
    return cudaErrorInvalidClusterSize;
  }
  const unsigned dynamic = shape.dynamic_shared_bytes;
  const unsigned allowed =
      kernel->max_dynamic_shared >= 0
          ? static_cast<unsigned>(kernel->max_dynamic_shared)
          : device.shared_bytes_per_block -
                std::min(device.shared_bytes_per_block, program.static_shared_bytes);
  if (dynamic > allowed) return cudaErrorInvalidValue;
  runtime.launch(*kernel, full, arguments);
  return cudaSuccess;
}

Extent extent(dim3 d) { return {d.x, d.y, d.z}; }

cudaError_t launch(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared) {
  return guarded([&](Runtime& runtime) {
    return launch(runtime, function,
                  {extent(grid), extent(block), {}, static_cast<uint32_t>(shared)}, arguments);
  });
}

}  // namespace

extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  Runtime& runtime = Runtime::instance();
  runtime.binaries.push_back(std::make_unique<FatBinary>(wrapper));
  return reinterpret_cast<void**>(runtime.binaries.back().get());
}

void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 0; }

void __cudaRegisterFunction(void** binary, const char* host, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  auto kernel = std::make_unique<Kernel>();
  kernel->binary = reinterpret_cast<FatBinary*>(binary);
  kernel->name = name;
  Runtime::instance().kernels.emplace(host, std::move(kernel));
}

void __cudaRegisterVar(void** binary, char* host, char*, const char* name, int, size_t, int, int) {
  Runtime::instance().variables[host] = {reinterpret_cast<FatBinary*>(binary), name};
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  call_configurations.push_back({grid, block, shared, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (call_configurations.empty()) return cudaErrorMissingConfiguration;
  const CallConfiguration c = call_configurations.back();
  call_configurations.pop_back();
  *grid = c.grid;
  *block = c.block;
  *shared = c.shared;
  *static_cast<cudaStream_t*>(stream) = c.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = reinterpret_cast<cudaKernel_t>(Runtime::instance().find(function));
  return *kernel != nullptr ? cudaSuccess : cudaErrorInvalidDeviceFunction;
}

cudaError_t cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  return guarded([&](Runtime&) { return __cudaGetKernel(kernel, function); });
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared, cudaStream_t) {
  return launch(kernel, grid, block, arguments, shared);
}

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments,
                             size_t shared, cudaStream_t) {
  return launch(function, grid, block, arguments, shared);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function,
                                void** arguments) {
  return guarded([&](Runtime& runtime) {
    LaunchShape shape{extent(config->gridDim),
                      extent(config->blockDim),
                      {},
                      static_cast<uint32_t>(config->dynamicSmemBytes)};
    for (unsigned i = 0; i < config->numAttrs; ++i) {
      if (config->attrs[i].id == cudaLaunchAttributeClusterDimension) {
        const auto& c = config->attrs[i].val.clusterDim;
        shape.cluster = {c.x, c.y, c.z};
      }
    }
    return launch(runtime, function, shape, arguments);
  });
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  return guarded([&](Runtime& runtime) {
    Kernel* kernel = runtime.find(function);
    if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
      const auto limit = static_cast<int>(runtime.options.device.shared_bytes_per_block_optin -
                                          runtime.program(*kernel).static_shared_bytes);
      if (value < 0 || value > limit) return cudaErrorInvalidValue;
      kernel->max_dynamic_shared = value;
      return cudaSuccess;
    }
    const bool known = attribute == cudaFuncAttributePreferredSharedMemoryCarveout ||
                       attribute == cudaFuncAttributeNonPortableClusterSizeAllowed;
    return known ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t cudaFuncSetCacheConfig(const void*, cudaFuncCache) { return cudaSuccess; }

cudaError_t cudaFuncGetName(const char** name, const void* function) {
  return guarded([&](Runtime& runtime) {
    const Kernel* kernel = runtime.find(function);
    if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
    *name = kernel->name.c_str();
    return cudaSuccess;
  });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* result, const void* function) {
  return guarded([&](Runtime& runtime) {
    Kernel* kernel = runtime.find(function);
    if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
    const Program& program = runtime.program(*kernel);
    const auto& device = runtime.options.device;
    *result = {};
    result->sharedSizeBytes = program.static_shared_bytes;
    result->localSizeBytes = program.local_bytes;
    result->maxThreadsPerBlock =
        static_cast<int>(program.max_threads != 0 ? program.max_threads : kMaxThreads);
    result->numRegs = 32;
    result->ptxVersion = kernel->binary->architecture(runtime.memory, device.capability);
    result->binaryVersion = result->ptxVersion;
    result->maxDynamicSharedSizeBytes =
        kernel->max_dynamic_shared >= 0
            ? kernel->max_dynamic_shared
            : static_cast<int>(device.shared_bytes_per_block - program.static_shared_bytes);
    return cudaSuccess;
  });
}

// By threads, blocks and shared memory; registers are not known here.
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks,
                                                                   const void* function,
                                                                   int threads, size_t shared,
                                                                   unsigned) {
  return guarded([&](Runtime& runtime) {
    Kernel* kernel = runtime.find(function);
    if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
    if (threads <= 0) return cudaErrorInvalidValue;
    const size_t each = runtime.program(*kernel).static_shared_bytes + shared + kReservedShared;
    const size_t by_shared = runtime.options.device.shared_bytes_per_multiprocessor / each;
    const size_t by_threads = 2048 / ((threads + 31) / 32 * 32);
    *blocks = static_cast<int>(std::min({by_shared, by_threads, size_t{kMaxBlocks}}));
    return cudaSuccess;
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function,
                                                          int threads, size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared,
                                                                0);
}

cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, const void* function,
                                           const cudaLaunchConfig_t* config) {
  return guarded([&](Runtime& runtime) {
    unsigned size = 1;
    for (unsigned i = 0; i < config->numAttrs; ++i) {
      if (config->attrs[i].id == cudaLaunchAttributeClusterDimension) {
        const auto& c = config->attrs[i].val.clusterDim;
        size = c.x * c.y * c.z;
      }
    }
    int blocks = 0;
    const cudaError_t error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        &blocks, function, static_cast<int>(extent(config->blockDim).count()),
        config->dynamicSmemBytes);
    *clusters = blocks * runtime.options.device.multiprocessors / static_cast<int>(size);
    return error;
  });
}

}  // extern "C"

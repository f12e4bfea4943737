// The state behind the functions of the CUDA runtime.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "tests/cuda_simulator/grid.h"
#include "tests/cuda_simulator/memory.h"
#include "tests/cuda_simulator/module.h"
#include "tests/cuda_simulator/program.h"

namespace sprocket::cuda_simulator {

// What one object file registers: its PTX for the simulated device.
class FatBinary : public SymbolTable {
 public:
  explicit FatBinary(const void* wrapper) : wrapper_(wrapper) {}
  // Parses the PTX and allocates its variables, the first time.
  Module& module(DeviceMemory& memory, int capability);
  uint64_t address(std::string_view name) const override;
  uint64_t bytes(std::string_view name) const;
  // The architecture of the PTX that was chosen, such as 80.
  int architecture(DeviceMemory& memory, int capability) {
    return std::stoi(std::string(module(memory, capability).target()));
  }
  void unload() {
    module_.reset();
    variables_.clear();
  }

 private:
  const void* wrapper_;
  std::unique_ptr<Module> module_;
  std::map<std::string, std::pair<uint64_t, uint64_t>, std::less<>> variables_;  // address, bytes
};

struct Kernel {
  FatBinary* binary = nullptr;
  std::string name;
  std::unique_ptr<Program> program;  // made by the first launch
  int max_dynamic_shared = -1;       // set by cudaFuncSetAttribute
};

// CUDA_SIMULATOR=capability=9.0,seed=7: README.md.
struct Options {
  Device device;
  Schedule schedule;
};
Options options_from_environment();

class Runtime {
 public:
  static Runtime& instance();

  std::recursive_mutex mutex;
  Options options = options_from_environment();
  DeviceMemory memory;
  std::vector<std::unique_ptr<FatBinary>> binaries;
  std::unordered_map<const void*, std::unique_ptr<Kernel>> kernels;  // by the host's function
  struct HostVariable {
    FatBinary* binary;
    std::string name;
  };
  std::unordered_map<const void*, HostVariable> variables;

  // The kernel that a host function or a cudaKernel_t names; nullptr if there is none.
  Kernel* find(const void* function);
  // Throws DeviceError.
  Program& program(Kernel& kernel);
  void launch(Kernel& kernel, const LaunchShape& shape, void** arguments);

  // What a call returns: the error is remembered for cudaGetLastError. A fault of a kernel stays:
  // every later call fails with it until cudaDeviceReset.
  cudaError_t finish(cudaError_t error);
  cudaError_t fault(const std::string& message, cudaError_t error);
  cudaError_t sticky() const { return sticky_; }
  cudaError_t take_last_error(bool clear);
  // As after the start of the process: frees everything, and reads the options again.
  void reset();

 private:
  cudaError_t last_ = cudaSuccess;
  cudaError_t sticky_ = cudaSuccess;
};

// Runs the body of a function of the runtime: with the lock, not after a fault, and with a message
// for what the simulator throws.
cudaError_t guarded(const std::function<cudaError_t(Runtime&)>& body);

}  // namespace sprocket::cuda_simulator

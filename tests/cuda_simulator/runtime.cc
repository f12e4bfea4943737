#include "tests/cuda_simulator/runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/cuda_simulator/error.h"
#include "tests/cuda_simulator/fatbin.h"

namespace sprocket::cuda_simulator {
namespace {

cudaError_t code_of(Fault fault) {
  switch (fault) {
    case Fault::kUnsupported:
      return cudaErrorNotSupported;
    case Fault::kIllegalAddress:
      return cudaErrorIllegalAddress;
    case Fault::kMisaligned:
      return cudaErrorMisalignedAddress;
    case Fault::kIllegalInstruction:
      return cudaErrorIllegalInstruction;
    case Fault::kTrap:
      return cudaErrorLaunchFailure;
    case Fault::kDeadlock:
      return cudaErrorLaunchTimeout;
    case Fault::kRace:
      return cudaErrorLaunchFailure;
  }
  return cudaErrorUnknown;
}

Device device_of(int capability) {
  if (capability == 80) return {80, 108, 48 << 10, 163 << 10, 164 << 10};
  if (capability == 90) return {90, 132, 48 << 10, 227 << 10, 228 << 10};
  unsupported("CUDA_SIMULATOR: expected capability=8.0 or capability=9.0");
}

}  // namespace

Options options_from_environment() {
  Options result;
  const char* text = std::getenv("CUDA_SIMULATOR");
  std::string_view rest = text != nullptr ? text : "";
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(item.size() + 1, rest.size()));
    const size_t equals = item.find('=');
    const std::string_view key = item.substr(0, equals);
    const std::string value(equals == std::string_view::npos ? "" : item.substr(equals + 1));
    if (key == "capability") {
      result.device = device_of(value == "8.0" ? 80 : value == "9.0" ? 90 : 0);
    } else if (key == "seed" && !value.empty()) {
      result.schedule.seed = std::strtoull(value.c_str(), nullptr, 10);
    } else {
      unsupported("CUDA_SIMULATOR: expected capability=… and seed=…, found '{}'", item);
    }
  }
  return result;
}

Module& FatBinary::module(DeviceMemory& memory, int capability) {
  if (module_) return *module_;
  std::vector<std::string> texts = ptx_of_fatbin(wrapper_);
  std::vector<std::string> targets;
  for (const std::string& text : texts) targets.push_back(ptx_target(text));
  const int chosen = choose_target(targets, capability);
  if (chosen < 0) unsupported("no PTX for capability {}.{}", capability / 10, capability % 10);
  auto module = std::make_unique<Module>(std::move(texts[chosen]));
  for (const Variable& v : module->variables()) {
    if (v.space == Space::kShared) continue;
    const uint64_t at = memory.allocate(v.bytes);
    variables_.emplace(v.name, std::pair(at, v.bytes));
    if (v.bytes > 0) std::memset(memory.find(at, v.bytes), 0, v.bytes);
    std::memcpy(memory.find(at, v.initial.size()), v.initial.data(), v.initial.size());
  }
  for (const Variable& v : module->variables()) {
    for (const Variable::Pointer& p : v.pointers) {
      const uint64_t value = address(p.symbol) + static_cast<uint64_t>(p.addend);
      std::memcpy(memory.find(address(v.name) + p.offset, sizeof value), &value, sizeof value);
    }
  }
  module_ = std::move(module);
  return *module_;
}

uint64_t FatBinary::address(std::string_view name) const {
  const auto found = variables_.find(name);
  if (found == variables_.end()) unsupported("no variable {}", name);
  return found->second.first;
}

uint64_t FatBinary::bytes(std::string_view name) const {
  const auto found = variables_.find(name);
  if (found == variables_.end()) unsupported("no variable {}", name);
  return found->second.second;
}

Runtime& Runtime::instance() {
  // Never destroyed: binaries unregister late.
  static Runtime* const runtime = new Runtime;
  return *runtime;
}

Kernel* Runtime::find(const void* function) {
  const auto found = kernels.find(function);
  if (found != kernels.end()) return found->second.get();
  for (const auto& [host, kernel] : kernels) {
    if (kernel.get() == function) return kernel.get();
  }
  return nullptr;
}

Program& Runtime::program(Kernel& kernel) {
  if (!kernel.program) {
    Module& module = kernel.binary->module(memory, options.device.capability);
    kernel.program = std::make_unique<Program>(make_program(module, kernel.name, *kernel.binary));
  }
  return *kernel.program;
}

void Runtime::launch(Kernel& kernel, const LaunchShape& shape, void** arguments) {
  const Program& p = program(kernel);
  std::vector<std::byte> parameters(p.parameter_bytes);
  for (size_t i = 0; i < p.parameters.size(); ++i) {
    std::memcpy(parameters.data() + p.parameters[i].offset, arguments[i], p.parameters[i].bytes);
  }
  Grid(p, shape, std::move(parameters), memory, options.device, options.schedule).run();
}

cudaError_t Runtime::finish(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) last_ = error;
  return error;
}

cudaError_t Runtime::fault(const std::string& message, cudaError_t error) {
  std::fprintf(stderr, "CUDA simulator: %s\n", message.c_str());
  sticky_ = error;
  return finish(error);
}

cudaError_t Runtime::take_last_error(bool clear) {
  const cudaError_t result = sticky_ != cudaSuccess ? sticky_ : last_;
  if (clear) last_ = cudaSuccess;
  return result;
}

void Runtime::reset() {
  last_ = sticky_ = cudaSuccess;
  for (const auto& [host, kernel] : kernels) {
    kernel->program.reset();
    kernel->max_dynamic_shared = -1;
  }
  for (const auto& binary : binaries) binary->unload();
  memory.free_all();
  options = options_from_environment();
}

cudaError_t guarded(const std::function<cudaError_t(Runtime&)>& body) {
  Runtime& runtime = Runtime::instance();
  const std::lock_guard lock(runtime.mutex);
  if (runtime.sticky() != cudaSuccess) return runtime.sticky();
  try {
    return runtime.finish(body(runtime));
  } catch (const DeviceError& error) {
    return runtime.fault(error.what(), code_of(error.fault()));
  } catch (const std::exception& error) {
    return runtime.fault(error.what(), cudaErrorUnknown);
  }
}

}  // namespace sprocket::cuda_simulator

// What a simulated kernel, or a call of the runtime, can do wrong.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace sprocket::cuda_simulator {

enum class Fault {
  kUnsupported,     // PTX that the simulator does not know
  kIllegalAddress,  // outside every allocation, or of memory never written
  kMisaligned,
  kIllegalInstruction,  // operands that PTX calls undefined
  kTrap,
  kDeadlock,
  kRace,
};

class DeviceError : public std::runtime_error {
 public:
  DeviceError(Fault fault, const std::string& message)
      : std::runtime_error(message), fault_(fault) {}
  Fault fault() const { return fault_; }

 private:
  Fault fault_;
};

// An error of one lane: the executor adds where it was.
class LaneError : public DeviceError {
 public:
  LaneError(Fault fault, int lane, const std::string& message)
      : DeviceError(fault, message), lane_(lane) {}
  int lane() const { return lane_; }

 private:
  int lane_;
};

template <typename... Args>
[[noreturn]] void unsupported(fmt::format_string<Args...> format, Args&&... args) {
  throw DeviceError(Fault::kUnsupported, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace sprocket::cuda_simulator

#include "base/exit_code.h"

#include "base/error.h"

namespace sprocket {

ExitCode exit_code_of(const std::exception& error) {
  if (dynamic_cast<const ConfigError*>(&error)) return ExitCode::kConfig;
  if (dynamic_cast<const InputError*>(&error)) return ExitCode::kInput;
  if (dynamic_cast<const OutputError*>(&error)) return ExitCode::kOutput;
  if (dynamic_cast<const CommError*>(&error)) return ExitCode::kComm;
  if (dynamic_cast<const CudaError*>(&error)) return ExitCode::kCuda;
  if (dynamic_cast<const NonFiniteError*>(&error)) return ExitCode::kNonFinite;
  return ExitCode::kInternal;
}

}  // namespace sprocket

// Process exit codes, documented in docs/exit_codes.md. exit() is called in main alone.
#pragma once

#include <exception>

namespace sprocket {

enum class ExitCode : int {
  kOk = 0,
  kInternal = 1,      // a bug: InternalError or an unexpected exception
  kConfig = 2,        // ConfigError: nothing was run
  kInput = 3,         // InputError: a file is missing, damaged or of the wrong kind
  kOutput = 4,        // OutputError: disk full, read-only folder, folder in use
  kComm = 5,          // CommError: a peer died, hung or diverged
  kCuda = 6,          // CudaError
  kNonFinite = 7,     // NonFiniteError: the loss is not a number
  kMismatch = 8,      // many ranks compute something else than one
  kRegression = 9,    // a step became slower by more than was allowed
  kInterrupted = 75,  // SIGTERM or SIGINT: the job saved a checkpoint and can be resumed
  kAborted = 76,      // a second signal to `sprocket launch`: the job was ended at once
};

// The code of an exception's type; kInternal for what is no sprocket::Error.
ExitCode exit_code_of(const std::exception& error);

}  // namespace sprocket

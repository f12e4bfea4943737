#include "launcher/report_error.h"

#include <cstdio>

#include <fmt/format.h>

#include "base/error.h"

namespace sprocket::launcher {

ExitCode report_error(const std::exception& error) {
  const ExitCode code = exit_code_of(error);
  std::string text;
  if (dynamic_cast<const Error*>(&error) == nullptr) text = "unexpected error: ";
  text += error.what();
  text += '\n';
  if (code == ExitCode::kConfig) text += "sprocket: nothing was run\n";
  if (code == ExitCode::kInternal) {
    text += "sprocket: this is a bug; please report it with the command line and the job\n";
  }
  // One call, so that the lines of several ranks do not mix.
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
  return code;
}

}  // namespace sprocket::launcher

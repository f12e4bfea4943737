// The one place that turns exceptions into exit codes and messages.
#include <cstdio>

#include <fmt/format.h>

#include "base/error.h"
#include "launcher/command.h"
#include "launcher/command_line_error.h"

namespace sprocket::launcher {
namespace {

int report(const std::exception& error) {
  const ExitCode code = exit_code_of(error);
  const char* kind = dynamic_cast<const Error*>(&error) ? "" : "unexpected error: ";
  fmt::print(stderr, "{}{}\n", kind, error.what());
  switch (code) {
    case ExitCode::kConfig:
      fmt::print(stderr, "sprocket: nothing was run\n");
      break;
    case ExitCode::kInternal:
      fmt::print(stderr,
                 "sprocket: this is a bug; please report it with the command line and the job\n");
      break;
    case ExitCode::kOk:
    case ExitCode::kInput:
    case ExitCode::kOutput:
    case ExitCode::kComm:
    case ExitCode::kCuda:
    case ExitCode::kNonFinite:
    case ExitCode::kInterrupted:
      break;
  }
  return static_cast<int>(code);
}

int run(int argc, char** argv) {
  Action action;
  const std::unique_ptr<CLI::App> app = make_command_line(action);
  try {
    app->parse(argc, argv);
  } catch (const CLI::Success& wanted) {  // --help, --version
    return app->exit(wanted);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "{}\n", describe(*app, error));
    return static_cast<int>(ExitCode::kConfig);
  }
  try {
    return static_cast<int>(action());
  } catch (const std::exception& error) {
    return report(error);
  }
}

}  // namespace
}  // namespace sprocket::launcher

int main(int argc, char** argv) { return sprocket::launcher::run(argc, argv); }

// The one place that turns exceptions into exit codes and messages.
#include <cstdio>
#include <string>

#include <fmt/format.h>

#include "launcher/command.h"
#include "launcher/command_line_error.h"
#include "launcher/report_error.h"
#include "launcher/session.h"

namespace sprocket::launcher {
namespace {

// Under mpirun every rank has read the same line; one of them says what is wrong with it.
ExitCode refuse_command_line(const std::string& message) {
  if (!started_by_mpirun()) {
    fmt::print(stderr, "{}\n", message);
    return ExitCode::kConfig;
  }
  return run_on_ranks(LogLevel::kNormal, [&](const Session& session) -> ExitCode {
    if (session.first()) fmt::print(stderr, "{}\n", message);
    return ExitCode::kConfig;
  });
}

int run(int argc, char** argv) {
  Action action;
  const std::unique_ptr<CLI::App> app = make_command_line(action);
  try {
    app->parse(argc, argv);
  } catch (const CLI::Success& wanted) {  // --help, --version
    return app->exit(wanted);
  } catch (const CLI::ParseError& error) {
    return static_cast<int>(refuse_command_line(describe(*app, error)));
  }
  try {
    return static_cast<int>(action());
  } catch (const std::exception& error) {
    return static_cast<int>(report_error(error));
  }
}

}  // namespace
}  // namespace sprocket::launcher

int main(int argc, char** argv) { return sprocket::launcher::run(argc, argv); }

// The one place that turns exceptions into exit codes and messages.
#include <cstdio>

#include <fmt/format.h>

#include "launcher/command.h"
#include "launcher/command_line_error.h"
#include "launcher/report_error.h"

namespace sprocket::launcher {
namespace {

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
    return static_cast<int>(report_error(error));
  }
}

}  // namespace
}  // namespace sprocket::launcher

int main(int argc, char** argv) { return sprocket::launcher::run(argc, argv); }

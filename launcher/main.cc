// The one place that turns exceptions into exit codes and messages.
#include <malloc.h>

#include <cstdio>
#include <limits>
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

// Every step allocates tensors of the same sizes. By default large ones are mapped anew each time,
// and their pages cost a tenth of an attention call; kept mapped, they cost nothing.
void keep_freed_memory() {
  constexpr int kNever = -1;
  mallopt(M_MMAP_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_TRIM_THRESHOLD, kNever);
}

int run(int argc, char** argv) {
  keep_freed_memory();
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

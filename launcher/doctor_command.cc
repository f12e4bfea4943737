#include <fmt/format.h>

#include "launcher/command.h"
#include "launcher/doctor/libraries.h"
#include "launcher/doctor/machine.h"
#include "launcher/doctor/message_passing.h"

namespace sprocket::launcher {
namespace {

ExitCode examine() {
  std::vector<Finding> findings = check_machine();
  for (auto check : {check_libraries, check_message_passing}) {
    for (Finding& finding : check()) findings.push_back(std::move(finding));
  }
  fmt::print("{}", format_findings(findings));
  return any_problem(findings) ? ExitCode::kConfig : ExitCode::kOk;
}

}  // namespace

void add_doctor_command(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "doctor",
      "Checks whether jobs can run on this machine, and says what to do about what it finds.\n"
      "Looks at processor, memory, shared memory, limits, and the libraries and their versions.",
      "sprocket doctor",
      "\nExample:\n"
      "  sprocket doctor\n" +
          exit_codes_text({ExitCode::kOk}) +
          fmt::format("\n  {:<4} something prevents jobs from running",
                      static_cast<int>(ExitCode::kConfig)));
  command.callback([&action] { action = examine; });
}

}  // namespace sprocket::launcher

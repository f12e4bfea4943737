// `sprocket profile compare` as a user starts it, and what its exit codes say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/exit_code.h"
#include "runtime/profile/report.h"
#include "tests/launcher/process.h"
#include "tests/profile/example_report.h"

namespace sprocket::launcher {
namespace {

using ::testing::HasSubstr;

int number(ExitCode code) { return static_cast<int>(code); }

// Every step takes `ms` more of exposed communication.
std::string profile_file(const std::string& name, double ms) {
  profile::Report report = testing::example_report();
  report.window.complete = true;
  for (double& seconds : report.step.each_seconds) seconds += 1e-3 * ms;
  for (double& each : report.each.exposed_communication) each += ms;
  report.operations[0].transfer_ms += 0.9 * ms;
  return write_file(name, profile::report_json(report));
}

TEST(ProfileCompare, ExitCodesAreForScripts) {
  const std::string before = profile_file("before.json", 0), after = profile_file("after.json", 20);
  const ProcessResult slower = run_sprocket("profile compare " + before + " " + after);
  EXPECT_EQ(slower.code, number(ExitCode::kRegression)) << slower.err;
  EXPECT_THAT(slower.out, HasSubstr("B is 10.0 % slower (199.9 ms -> 219.9 ms, beyond noise of "));
  EXPECT_THAT(slower.out, HasSubstr("exposed communication +20 ms, of it sp.outer exchange "
                                    "forward +18 ms; more than --max-regression 5 %"));
  EXPECT_EQ(slower.err, "");
  const auto code_of = [&](const std::string& arguments) {
    return run_sprocket("profile compare " + arguments).code;
  };
  EXPECT_EQ(code_of(before + " " + after + " --max-regression 20%"), number(ExitCode::kOk));
  EXPECT_EQ(code_of(after + " " + before), number(ExitCode::kOk));
  EXPECT_EQ(code_of(before + " " + before + " --all"), number(ExitCode::kOk));
}

TEST(ProfileCompare, RefusesWhatItCannotCompare) {
  const std::string before = profile_file("before.json", 0);
  const ProcessResult none = run_sprocket("profile compare " + before + " /nowhere/b.json");
  EXPECT_EQ(none.code, number(ExitCode::kInput));
  EXPECT_THAT(none.err, HasSubstr("/nowhere/b.json: cannot be read"));
  profile::Report incomplete = testing::example_report();
  const std::string other = write_file("incomplete.json", profile::report_json(incomplete));
  const ProcessResult refused = run_sprocket("profile compare " + before + " " + other);
  EXPECT_EQ(refused.code, number(ExitCode::kInput));
  EXPECT_THAT(refused.err, HasSubstr("cannot be compared (--different-jobs does all the same)"));
  EXPECT_EQ(run_sprocket("profile compare " + before + " " + other + " --different-jobs").code,
            number(ExitCode::kOk));
  const ProcessResult flag =
      run_sprocket("profile compare " + before + " " + before + " --max-regression 5");
  EXPECT_EQ(flag.code, number(ExitCode::kConfig));
  EXPECT_THAT(flag.err, HasSubstr("legal: 0 to 1, or percent with the sign"));
  EXPECT_EQ(run_sprocket("profile compare " + before).code, number(ExitCode::kConfig));
}

}  // namespace
}  // namespace sprocket::launcher

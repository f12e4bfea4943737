#include <fmt/format.h>

#include "launcher/command.h"
#include "runtime/profile/compare.h"

namespace sprocket::launcher {
namespace {

struct CompareFlags {
  std::string a, b;
  std::string max_regression = "5%";
  bool all = false;
  bool different_jobs = false;
};

ExitCode compare(const CompareFlags& flags) {
  profile::CompareOptions options;
  options.max_regression = profile::parse_max_regression(flags.max_regression);
  options.different_jobs = flags.different_jobs;
  const profile::Comparison comparison = profile::compare(
      profile::read_report(flags.a), profile::read_report(flags.b), options, flags.a, flags.b);
  fmt::print("{}", profile::comparison_text(comparison, flags.all));
  return comparison.regression ? ExitCode::kRegression : ExitCode::kOk;
}

}  // namespace

void add_profile_compare_command(CLI::App& parent, Action& action) {
  CLI::App& command =
      add_command(parent, "compare",
                  "Says what changed between two profiles of a job, by how much, beyond noise.\n"
                  "Noise is the spread over the steps of the two; docs/profile.md has the test.",
                  "sprocket profile compare A.json B.json [flags]",
                  "\nExamples:\n"
                  "  sprocket profile compare before/profile.json after/profile.json\n"
                  "  sprocket profile compare main.json branch.json --max-regression 2% --all\n" +
                      exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig,
                                       ExitCode::kInput, ExitCode::kRegression}));
  auto flags = std::make_shared<CompareFlags>();
  command.add_option("a", flags->a, "The profile to compare with.")
      ->option_text("A.json")
      ->required();
  command.add_option("b", flags->b, "The profile that is compared.")
      ->option_text("B.json")
      ->required();
  command
      .add_option("--max-regression", flags->max_regression,
                  "How much slower B's step may be, as a share or in percent; 5%. Beyond it, and "
                  "beyond noise, the exit code is 9.")
      ->option_text("SHARE");
  command.add_flag("--all", flags->all, "Lists every row, and those that did not change.");
  command.add_flag("--different-jobs", flags->different_jobs,
                   "Compares profiles of different jobs, kinds or numbers of ranks and incomplete "
                   "windows all the same; what differs is listed.");
  command.callback([flags, &action] { action = [flags] { return compare(*flags); }; });
}

}  // namespace sprocket::launcher

#include "launcher/command.h"

#include <fmt/format.h>

#include "launcher/build_info.h"
#include "launcher/help_formatter.h"

namespace sprocket::launcher {
namespace {

const char* meaning_of(ExitCode code) {
  switch (code) {
    case ExitCode::kOk:
      return "done";
    case ExitCode::kInternal:
      return "a bug of sprocket";
    case ExitCode::kConfig:
      return "the job or the command line is wrong; nothing was run";
    case ExitCode::kInput:
      return "a file is missing, damaged or of the wrong kind";
    case ExitCode::kOutput:
      return "results could not be written";
    case ExitCode::kComm:
      return "a rank died, hung or diverged";
    case ExitCode::kCuda:
      return "a GPU reported an error";
    case ExitCode::kNonFinite:
      return "the loss is no longer a number";
    case ExitCode::kMismatch:
      return "the results of many ranks are not those of one";
    case ExitCode::kRegression:
      return "a step became slower by more than --max-regression, beyond noise";
    case ExitCode::kInterrupted:
      return "interrupted by a signal; a checkpoint was saved to resume from";
    case ExitCode::kAborted:
      return "ended at once by a second signal; what was saved before is intact";
  }
  return "";
}

void lay_out(CLI::App& app, const std::string& usage, const std::string& footer) {
  auto formatter = std::make_shared<HelpFormatter>(usage);
  formatter->label("Positionals", "Arguments");
  app.formatter(std::move(formatter));
  app.set_help_flag("-h,--help", "Prints this text.")->group("Flags");
  app.footer(footer);
}

}  // namespace

CLI::App& add_command(CLI::App& parent, const std::string& name, const std::string& description,
                      const std::string& usage, const std::string& footer) {
  CLI::App& command = *parent.add_subcommand(name, description);
  command.group("Commands");
  command.option_defaults()->group("Flags");
  lay_out(command, usage, footer);
  return command;
}

void add_job_choice(CLI::App& command, std::string& config, std::vector<std::string>& sets) {
  command.add_option("--config", config, "The job description (docs/config.md). Required.")
      ->option_text("FILE")
      ->required();
  command
      .add_option(
          "--set", sets,
          "Changes a field of the job, for example --set 'parallel.ulysses: 2'. Text format with "
          "dotted paths; may be given several times.")
      ->option_text("'PATH: VALUE'")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void add_job_flags(CLI::App& command, JobFlags& flags) {
  add_job_choice(command, flags.config, flags.sets);
  command.add_option("--output", flags.output, "Folder of the run; replaces output.directory.")
      ->option_text("DIR");
  command.add_flag(
      "--dry-run", flags.dry_run,
      "Prints the resolved job, the mesh, bytes per layer and memory, and runs nothing.");
  command.add_flag("--verbose", flags.verbose, "Logs more, from every rank.");
}

void add_contact_flag(CLI::App& command, std::string& contact) {
  // `sprocket launch` sets it; a group without a name is not shown.
  command.add_option("--supervised", contact)->group("");
}

std::string exit_codes_text(const std::vector<ExitCode>& codes) {
  std::string text = "\nExit codes:\n";
  for (const ExitCode code : codes) {
    text += fmt::format("  {:<4} {}\n", static_cast<int>(code), meaning_of(code));
  }
  text.pop_back();
  return text;
}

std::unique_ptr<CLI::App> make_command_line(Action& action) {
  auto app = std::make_unique<CLI::App>(
      "Trains video diffusion transformers on many ranks when one video is too long for one of "
      "them:\n"
      "the token sequence is sharded, and only the KV blocks that attention selected cross the "
      "network.",
      "sprocket");
  lay_out(*app, "sprocket COMMAND [flags]    or    mpirun -np N sprocket COMMAND [flags]",
          "\nStart here:\n"
          "  sprocket doctor\n"
          "  sprocket train --help\n"
          "\nA job is described by one file: docs/config.md explains every field, configs/ holds "
          "examples.");
  app->set_version_flag("--version", fmt::format("sprocket {}", kVersion), "Prints the version.")
      ->group("Flags");
  app->require_subcommand(1);
  add_train_command(*app, action);
  add_distill_command(*app, action);
  add_sample_command(*app, action);
  add_attention_command(*app, action);
  add_check_parity_command(*app, action);
  add_data_command(*app, action);
  add_checkpoint_command(*app, action);
  add_lora_command(*app, action);
  add_plan_command(*app, action);
  add_profile_command(*app, action);
  add_doctor_command(*app, action);
  add_launch_command(*app, action);
  add_status_command(*app, action);
  return app;
}

}  // namespace sprocket::launcher

// What the subcommands of sprocket share.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/exit_code.h"
#include "base/log.h"

namespace sprocket::launcher {

// Runs a subcommand whose flags have been read. Errors are exceptions; main alone ends the process.
using Action = std::function<ExitCode()>;

// A subcommand's functions below add it to `parent`; when it is chosen on the command line they
// store what has to be done in `action`.
void add_train_command(CLI::App& parent, Action& action);
void add_distill_command(CLI::App& parent, Action& action);
void add_sample_command(CLI::App& parent, Action& action);
void add_attention_command(CLI::App& parent, Action& action);
void add_check_parity_command(CLI::App& parent, Action& action);
void add_data_command(CLI::App& parent, Action& action);
void add_checkpoint_command(CLI::App& parent, Action& action);
void add_lora_command(CLI::App& parent, Action& action);
void add_embed_prompts_command(CLI::App& parent, Action& action);  // parent: `data`
void add_plan_command(CLI::App& parent, Action& action);
void add_profile_compare_command(CLI::App& parent, Action& action);  // parent: `profile`
void add_profile_command(CLI::App& parent, Action& action);
void add_doctor_command(CLI::App& parent, Action& action);
void add_launch_command(CLI::App& parent, Action& action);
void add_status_command(CLI::App& parent, Action& action);

// The whole command line, without what main does around it.
std::unique_ptr<CLI::App> make_command_line(Action& action);

// A subcommand in the house layout. `description`: the first line goes into the parent's list.
CLI::App& add_command(CLI::App& parent, const std::string& name, const std::string& description,
                      const std::string& usage, const std::string& footer);

// --config and --set alone.
void add_job_choice(CLI::App& command, std::string& config, std::vector<std::string>& sets);

// --config, --set, --dry-run, --output, --verbose: the same for every job.
struct JobFlags {
  std::string config;
  std::vector<std::string> sets;
  std::string output;
  bool dry_run = false;
  bool verbose = false;
  std::string contact;  // of the supervisor (launcher/supervised.h); empty: none

  LogLevel log_level() const { return verbose ? LogLevel::kVerbose : LogLevel::kNormal; }
};
void add_job_flags(CLI::App& command, JobFlags& flags);
// Where ranks find the supervisor that started them.
void add_contact_flag(CLI::App& command, std::string& contact);

// The part of a footer that lists exit codes.
std::string exit_codes_text(const std::vector<ExitCode>& codes);

}  // namespace sprocket::launcher

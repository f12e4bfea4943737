#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>

#include "base/error.h"
#include "launcher/command.h"
#include "runtime/checkpoint/checkpoint_summary.h"
#include "runtime/jobs/checkpoint_export.h"
#include "runtime/plan/units.h"

namespace sprocket::launcher {
namespace {

using runtime::CheckpointSummary;
using runtime::VerifyDepth;

std::string name_of(const CheckpointSummary& summary) {
  return std::filesystem::path(summary.checkpoint.path).filename().string();
}

std::string size_of(const CheckpointSummary& summary) {
  return fmt::format("{} in {} file{}", runtime::megabytes_text(static_cast<double>(summary.bytes)),
                     summary.files, summary.files == 1 ? "" : "s");
}

ExitCode list(const std::string& run) {
  configure_logging(LogLevel::kNormal, 0, 1);
  const auto summaries = runtime::summarise_checkpoints(run, VerifyDepth::kSizes);
  for (const CheckpointSummary& summary : summaries) {
    fmt::print("{}  {:<22}  {:<8}  {}\n", name_of(summary), size_of(summary),
               summary.damage.empty() ? "complete" : "damaged", fmt::join(summary.holds, ", "));
    for (const std::string& damage : summary.damage) fmt::print("  {}\n", damage);
  }
  return ExitCode::kOk;
}

ExitCode verify(const std::string& path) {
  configure_logging(LogLevel::kNormal, 0, 1);
  const auto summaries = runtime::summarise_checkpoints(path, VerifyDepth::kContents);
  std::string problems;
  size_t damaged = 0;
  for (const CheckpointSummary& summary : summaries) {
    if (summary.damage.empty()) {
      fmt::print("{}: intact, {}\n", summary.checkpoint.path, size_of(summary));
      continue;
    }
    ++damaged;
    for (const std::string& damage : summary.damage) {
      problems += fmt::format("{}: {}\n", summary.checkpoint.path, damage);
    }
  }
  if (damaged == 0) return ExitCode::kOk;
  throw InputError(fmt::format("{}{}: {} of {} checkpoint{} damaged", problems, path, damaged,
                               summaries.size(), summaries.size() == 1 ? "" : "s"));
}

ExitCode export_file(const runtime::CheckpointExport& options) {
  configure_logging(LogLevel::kNormal, 0, 1);
  const runtime::CheckpointExportResult result = runtime::export_weights(options);
  fmt::print("{}: {} tensors of {}, step {}{}\n", options.output, result.tensors, result.checkpoint,
             result.step, result.merged ? ", adapters merged" : "");
  return ExitCode::kOk;
}

void add_list(CLI::App& parent, Action& action) {
  CLI::App& command =
      add_command(parent, "list",
                  "Lists the checkpoints of a run, oldest first.\n"
                  "Prints for each its size, what it holds, and whether all files are there and "
                  "have the sizes of the\n"
                  "manifest; `sprocket checkpoint verify` reads them.",
                  "sprocket checkpoint list RUN",
                  "\nExample:\n"
                  "  sprocket checkpoint list outputs/run\n" +
                      exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig,
                                       ExitCode::kInput}));
  auto run = std::make_shared<std::string>();
  command.add_option("RUN", *run, "Folder of a run. Required.")->required();
  command.callback([run, &action] { action = [run] { return list(*run); }; });
}

void add_verify(CLI::App& parent, Action& action) {
  CLI::App& command =
      add_command(parent, "verify",
                  "Checks whether checkpoints are intact.\n"
                  "Reads every file and compares its hash with the manifest's. Lists everything "
                  "that differs.",
                  "sprocket checkpoint verify PATH",
                  "\nExamples:\n"
                  "  sprocket checkpoint verify outputs/run\n"
                  "  sprocket checkpoint verify outputs/run/step_00001000\n" +
                      exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig,
                                       ExitCode::kInput}));
  auto path = std::make_shared<std::string>();
  command.add_option("PATH", *path, "A checkpoint, or a run, of which all are checked. Required.")
      ->required();
  command.callback([path, &action] { action = [path] { return verify(*path); }; });
}

void add_export(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "export",
      "Writes the weights of a checkpoint as one safetensors file with diffusers' names.\n"
      "Where adapters were trained they are added to the weights that they were trained beside, "
      "which are read\n"
      "from where the training had them; `sprocket lora export` writes them by themselves.",
      "sprocket checkpoint export PATH --output FILE [flags]",
      "\nExample:\n"
      "  sprocket checkpoint export outputs/run --output weights.safetensors\n" +
          exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig, ExitCode::kInput,
                           ExitCode::kOutput}));
  auto options = std::make_shared<runtime::CheckpointExport>();
  command
      .add_option("PATH", options->checkpoint,
                  "A checkpoint, or a run, of which the newest complete one is taken. Required.")
      ->required();
  command.add_option("--output", options->output, "The file to write. Required.")
      ->option_text("FILE")
      ->required();
  command.add_flag("--ema", options->ema, "The moving average instead of the last weights.");
  command.callback([options, &action] { action = [options] { return export_file(*options); }; });
}

}  // namespace

void add_checkpoint_command(CLI::App& parent, Action& action) {
  CLI::App& command =
      add_command(parent, "checkpoint", "Lists, verifies and exports the checkpoints of runs.",
                  "sprocket checkpoint COMMAND [flags]", "");
  command.require_subcommand(1);
  add_list(command, action);
  add_verify(command, action);
  add_export(command, action);
}

}  // namespace sprocket::launcher

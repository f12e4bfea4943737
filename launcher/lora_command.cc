#include <fmt/format.h>

#include "launcher/command.h"
#include "runtime/jobs/checkpoint_export.h"

namespace sprocket::launcher {
namespace {

ExitCode run(const runtime::CheckpointExport& options) {
  configure_logging(LogLevel::kNormal, 0, 1);
  const runtime::CheckpointExportResult result = runtime::export_adapters(options);
  fmt::print("{}: {} tensors of {}, step {}\n", options.output, result.tensors, result.checkpoint,
             result.step);
  return ExitCode::kOk;
}

void add_export(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "export",
      "Writes the adapters of a checkpoint as one safetensors file with diffusers' names.\n"
      "The factor alpha / rank is in the up matrices, so that a reader needs no alpha. Gates of "
      "the "
      "attention,\n"
      "which are trained whole, are in it under their own names. `sprocket checkpoint export` "
      "writes whole weights\n"
      "with the adapters added.",
      "sprocket lora export --checkpoint PATH --output FILE [flags]",
      "\nExamples:\n"
      "  sprocket lora export --checkpoint outputs/run --output adapters.safetensors\n" +
          exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig, ExitCode::kInput,
                           ExitCode::kOutput}));
  auto options = std::make_shared<runtime::CheckpointExport>();
  command
      .add_option("--checkpoint", options->checkpoint,
                  "A checkpoint, or a run, of which the newest valid one is taken. Required.")
      ->option_text("PATH")
      ->required();
  command.add_option("--output", options->output, "The file to write. Required.")
      ->option_text("FILE")
      ->required();
  command.add_flag("--ema", options->ema, "The moving average instead of the last weights.");
  command.callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace

void add_lora_command(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(parent, "lora", "Takes adapters out of checkpoints.",
                                  "sprocket lora COMMAND [flags]", "");
  command.require_subcommand(1);
  add_export(command, action);
}

}  // namespace sprocket::launcher

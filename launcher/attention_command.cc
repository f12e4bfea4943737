#include <fmt/format.h>

#include "configs/load.h"
#include "configs/validate.h"
#include "launcher/command.h"
#include "launcher/session.h"
#include "runtime/attention/attention_job.h"

namespace sprocket::launcher {
namespace {

struct AttentionFlags {
  JobFlags job;
  runtime::AttentionOptions options;
};

ExitCode attend(const AttentionFlags& flags, const Session& session) {
  config::Job job;
  session.run_on_all([&] {
    config::LoadOptions load;
    load.purpose = config::Purpose::kAttention;
    load.world = session.size();
    load.heads = runtime::heads_of_input(flags.options.input);
    const config::LoadedJob loaded = config::load_job(flags.job.config, flags.job.sets, load);
    config::check_on_processor(loaded, "sprocket attention");
    job = loaded.job;
  });
  Timeline timeline;
  std::unique_ptr<comm::Communicator> world = session.make_world(job.parallel(), &timeline);
  runtime::AttentionOptions options = flags.options;
  options.output = flags.job.output;
  options.threads = resolve_threads(job.compute(), *world);
  fmt::print("{}", runtime::run_attention(job, std::move(world), options));
  return ExitCode::kOk;
}

ExitCode start(const AttentionFlags& flags) {
  return run_on_ranks(flags.job.log_level(),
                      [&](const Session& session) { return attend(flags, session); });
}

void add_flags(CLI::App& command, AttentionFlags& flags) {
  runtime::AttentionOptions& options = flags.options;
  add_job_flags(command, flags.job);
  command.remove_option(command.get_option("--dry-run"));
  command.get_option("--output")
      ->description(
          "The safetensors file to write: out, lse, and what the flags below ask for. Required.")
      ->option_text("FILE")
      ->required();
  command
      .add_option("--input", options.input,
                  "A safetensors file with q, k, v [B, L, H, D] and, where they are needed, gate, "
                  "gate_fine and grad_out. Required.")
      ->option_text("FILE")
      ->required();
  command.add_flag("--backward", options.backward,
                   "Also writes the gradients of all inputs, from grad_out.");
  command.add_flag("--dump-selection", options.dump_selection,
                   "Also writes the selection, kept queries (BSA) and the blocks of the tokens.");
  command
      .add_option("--selection", options.selection,
                  "Uses the selection of an earlier output made with --dump-selection.")
      ->option_text("FILE");
  command
      .add_option("--repeat", options.repeat,
                  "Reports medians of N calls after a warm-up; by default the times of one call.")
      ->option_text("N")
      ->check(CLI::Range(1, 1000000));
  CLI::Option* const draw =
      command
          .add_option("--draw", options.draw,
                      "Draws the selection of a head of the first sample, over blocks and over "
                      "the video.")
          ->option_text("PNG");
  command.add_option("--draw-head", options.draw_head, "The head to draw; by default 0.")
      ->option_text("H")
      ->check(CLI::NonNegativeNumber)
      ->needs(draw);
  command
      .add_option("--draw-query", options.draw_query,
                  "The query block to draw over the video; by default one in the middle.")
      ->option_text("I")
      ->check(CLI::NonNegativeNumber)
      ->needs(draw);
}

}  // namespace

void add_attention_command(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "attention",
      "Computes attention on tensors of a file, by any method and on any number of ranks.\n"
      "Prints density, operations and the time of every stage. docs/attention_command.md describes "
      "the files.",
      "[mpirun -np N] sprocket attention --config FILE --input FILE --output FILE [flags]",
      "\nExamples:\n"
      "  sprocket attention --config configs/attention_vsa.txtpb --input qkv.safetensors --output "
      "out.safetensors\n"
      "  mpirun -np 2 sprocket attention --config configs/attention_bsa.txtpb --input "
      "qkv.safetensors \\\n"
      "    --output out.safetensors --backward --repeat 5 --set 'parallel.strategy: RING'\n"
      "  sprocket attention --config configs/attention_psa.txtpb --input qkv.safetensors --output "
      "out.safetensors \\\n"
      "    --dump-selection --draw selection.png --draw-head 3\n" +
          exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig, ExitCode::kInput,
                           ExitCode::kOutput, ExitCode::kComm}));
  auto flags = std::make_shared<AttentionFlags>();
  add_flags(command, *flags);
  command.callback([flags, &action] { action = [flags] { return start(*flags); }; });
}

}  // namespace sprocket::launcher

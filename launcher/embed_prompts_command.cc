#include <fmt/format.h>

#include "launcher/command.h"
#include "runtime/data/embed_prompts.h"

namespace sprocket::launcher {
namespace {

ExitCode embed(const data::EmbedOptions& options) {
  configure_logging(LogLevel::kNormal, 0, 1);
  const data::PromptIndex index = data::embed_prompts(options);
  fmt::print("{}: {} prompt{}{}, text {} version {} of {} x {}, for videos of {} latents\n",
             options.output, index.prompts.size(), index.prompts.size() == 1 ? "" : "s",
             index.negative ? " and a negative one" : "", index.text.name, index.text.version,
             index.text.tokens, index.text.dim, data::to_string(index.video.shape));
  return ExitCode::kOk;
}

}  // namespace

void add_embed_prompts_command(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "embed-prompts",
      "Embeds prompts once, for jobs that learn without videos.\n"
      "Writes the embeddings of all prompts, of the negative prompt, and which videos they are to "
      "become.\n"
      "The folder appears complete or not at all.",
      "sprocket data embed-prompts PROMPTS --output DIR (--like DIR | --frames N --height N "
      "--width "
      "N) [flags]",
      "\nExamples:\n"
      "  sprocket data embed-prompts prompts.txt --like data/clip --output data/prompts\n"
      "  sprocket data embed-prompts --manifest umt5.jsonl --frames 81 --height 480 --width 832 "
      "--output "
      "data/prompts\n"
      "\nA manifest has one JSON object a line; paths are relative to its folder, and each names a "
      "safetensors\n"
      "file with a tensor \"embedding\" [tokens, dim]:\n"
      "  {\"prompt\": \"a rabbit in a meadow\", \"text\": \"rabbit.safetensors\"}\n"
      "  {\"negative\": \"blurry\", \"text\": \"blurry.safetensors\"}\n" +
          exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig, ExitCode::kInput,
                           ExitCode::kOutput}));
  auto options = std::make_shared<data::EmbedOptions>();
  const auto number = [&](const char* flag, auto& value, const std::string& text) {
    command.add_option(flag, value, text)->option_text("N");
  };
  command.add_option("PROMPTS", options->prompts, "Text file with one prompt a line.");
  command
      .add_option("--output", options->output,
                  "Folder of the prompt set; must not hold anything yet. Required.")
      ->option_text("DIR")
      ->required();
  command
      .add_option("--manifest", options->manifest,
                  "Prompts with embeddings made elsewhere, instead of PROMPTS.")
      ->option_text("FILE");
  command
      .add_option("--negative", options->negative,
                  "What the videos are to be guided away from. Default: the empty text, zeros.")
      ->option_text("TEXT");
  command
      .add_option("--like", options->like,
                  "A data set: its embedder, codec, statistics and shift, and the size of its "
                  "first sample.")
      ->option_text("DIR");
  number("--frames", options->frames, "Without --like: frames of a video, 4k+1.");
  number("--height", options->height, "Without --like: pixels, a multiple of 16.");
  number("--width", options->width, "Without --like: pixels, a multiple of 16.");
  number("--channels", options->channels, "Without --like: latent channels. Default 16.");
  number("--fps", options->fps, "Without --like: frames per second. Default 16.");
  number("--shift", options->shift,
         "Shift of the noise schedule that the videos are meant for. Default: that of --like, "
         "else none.");
  number("--text-tokens", options->tokens,
         "Tokens of a hashed embedding. Default: those of --like, else 64.");
  number("--text-dim", options->dim,
         "Width of a hashed embedding. Default: that of --like, else 256.");
  command.callback([options, &action] { action = [options] { return embed(*options); }; });
}

}  // namespace sprocket::launcher

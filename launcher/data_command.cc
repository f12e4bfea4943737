#include <cstdio>

#include <fmt/format.h>

#include "base/error.h"
#include "launcher/command.h"
#include "launcher/terminal.h"
#include "runtime/data/encode.h"
#include "runtime/data/inspect.h"
#include "runtime/data/prompt_check.h"
#include "runtime/data/prompt_index.h"
#include "runtime/data/validate.h"

namespace sprocket::launcher {
namespace {

ExitCode encode(const data::EncodeOptions& options) {
  configure_logging(LogLevel::kNormal, 0, 1);
  const bool live = watched_by_a_person();
  const auto progress = [live](const data::EncodeProgress& state) {
    if (!live) return;
    fmt::print(stderr, "\r\033[K{}/{} videos, {} clips  {}{}", state.videos_done, state.videos,
               state.clips, state.current, state.current.empty() ? "\n" : "");
    std::fflush(stderr);
  };
  const data::EncodeResult result = data::encode_dataset(options, progress);
  fmt::print("{}: {} clip{} of {} video{}", options.output, result.index.samples.size(),
             result.index.samples.size() == 1 ? "" : "s", result.videos,
             result.videos == 1 ? "" : "s");
  if (result.dropped_frames > 0) {
    fmt::print("; {} frames at their ends were too few for another clip", result.dropped_frames);
  }
  fmt::print("\n");
  return ExitCode::kOk;
}

ExitCode inspect(const std::string& folder, int64_t samples) {
  configure_logging(LogLevel::kNormal, 0, 1);
  fmt::print("{}", data::is_prompt_set(folder) ? data::inspect_prompts(folder, samples)
                                               : data::inspect_dataset(folder, samples));
  return ExitCode::kOk;
}

ExitCode validate(const std::string& folder) {
  configure_logging(LogLevel::kNormal, 0, 1);
  const std::vector<std::string> problems =
      data::is_prompt_set(folder) ? data::validate_prompts(folder) : data::validate_dataset(folder);
  if (problems.empty()) {
    fmt::print("{}: intact\n", folder);
    return ExitCode::kOk;
  }
  std::string text;
  for (const std::string& problem : problems) text += problem + "\n";
  throw InputError(text + fmt::format("{}: {} problem{}", folder, problems.size(),
                                      problems.size() == 1 ? "" : "s"));
}

void add_encode(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "encode",
      "Turns video files into a data set of latents.\n"
      "Videos are decoded, scaled and cropped to the size, cut into clips, and encoded with the "
      "haar codec\n"
      "(a wavelet transform without weights). The folder appears complete or not at all.",
      "sprocket data encode VIDEO... --output DIR [flags]",
      "\nExamples:\n"
      "  sprocket data encode clip.mp4 --caption 'a rabbit in a meadow' --output data/clip\n"
      "  sprocket data encode --manifest videos.jsonl --width 832 --height 480 --frames 81 "
      "--output "
      "data/videos\n"
      "\nA manifest has one JSON object a line; paths are relative to its folder:\n"
      "  {\"video\": \"a.mp4\", \"caption\": \"…\", \"text\": \"a.safetensors\", \"width\": 832, "
      "\"height\": "
      "480, \"frames\": 81}\n" +
          exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig, ExitCode::kInput,
                           ExitCode::kOutput}));
  auto options = std::make_shared<data::EncodeOptions>();
  const auto number = [&](const char* flag, auto& value, const std::string& text) {
    command.add_option(flag, value, fmt::format("{} Default {}.", text, value))->option_text("N");
  };
  command.add_option("VIDEO", options->videos, "Video files, all with the same caption.");
  command
      .add_option("--output", options->output,
                  "Folder of the data set; must not hold anything yet. Required.")
      ->option_text("DIR")
      ->required();
  command.add_option("--caption", options->caption, "What the videos show.")->option_text("TEXT");
  command
      .add_option("--manifest", options->manifest,
                  "Videos with captions of their own, instead of VIDEO.")
      ->option_text("FILE");
  number("--width", options->width, "Pixels, a multiple of 16.");
  number("--height", options->height, "Pixels, a multiple of 16.");
  number("--frames", options->frames, "Frames of a clip, 4k+1.");
  number("--clip-stride", options->clip_stride,
         "Frames from the start of a clip to the start of the next; 0: as many as a clip has.");
  number("--max-clips", options->max_clips, "Clips of a video at most; 0: as many as fit.");
  number("--fps", options->fps, "Frames are dropped or repeated to this rate; 0: the video's own.");
  number("--frame-stride", options->frame_stride, "Takes every N-th frame.");
  number("--start-frame", options->start_frame, "Leaves out the first N frames of every video.");
  number("--channels", options->channels, "Latent channels of the codec, 1 to 768.");
  command
      .add_option(
          "--text", options->text,
          "How captions become embeddings: hashed (no weights), or precomputed (the manifest names "
          "a safetensors file for each video). Default hashed.")
      ->option_text("NAME");
  number("--text-tokens", options->tokens, "Tokens of a hashed embedding.");
  number("--text-dim", options->dim, "Width of a hashed embedding.");
  command.callback([options, &action] { action = [options] { return encode(*options); }; });
}

void add_inspect(CLI::App& parent, Action& action) {
  CLI::App& command =
      add_command(parent, "inspect",
                  "Shows what a data set or a prompt set holds.\n"
                  "Prints codec, text, shapes, statistics per channel, shards and samples or "
                  "prompts.",
                  "sprocket data inspect DIR [flags]",
                  "\nExample:\n"
                  "  sprocket data inspect data/clip\n" +
                      exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig,
                                       ExitCode::kInput}));
  struct Flags {
    std::string folder;
    int64_t samples = 20;
  };
  auto flags = std::make_shared<Flags>();
  command
      .add_option("DIR", flags->folder,
                  "Folder made by `sprocket data encode` or `embed-prompts`. Required.")
      ->required();
  command
      .add_option("--samples", flags->samples, "Samples or prompts to list at most. Default 20.")
      ->option_text("N")
      ->check(CLI::NonNegativeNumber);
  command.callback(
      [flags, &action] { action = [flags] { return inspect(flags->folder, flags->samples); }; });
}

void add_validate(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(parent, "validate",
                                  "Checks whether a data set or a prompt set is intact.\n"
                                  "Reads everything: sizes and hashes of shards, tensors of "
                                  "samples and prompts, values, stray files.\n"
                                  "Lists all problems.",
                                  "sprocket data validate DIR",
                                  "\nExample:\n"
                                  "  sprocket data validate data/clip\n" +
                                      exit_codes_text({ExitCode::kOk, ExitCode::kInternal,
                                                       ExitCode::kConfig, ExitCode::kInput}));
  auto folder = std::make_shared<std::string>();
  command
      .add_option("DIR", *folder,
                  "Folder made by `sprocket data encode` or `embed-prompts`. Required.")
      ->required();
  command.callback([folder, &action] { action = [folder] { return validate(*folder); }; });
}

}  // namespace

void add_data_command(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "data", "Makes, shows and checks data sets of latent videos and of prompts.",
      "sprocket data COMMAND [flags]",
      "\nExample:\n"
      "  sprocket data encode clip.mp4 --caption 'a rabbit in a meadow' --output data/clip");
  command.require_subcommand(1);
  add_encode(command, action);
  add_embed_prompts_command(command, action);
  add_inspect(command, action);
  add_validate(command, action);
}

}  // namespace sprocket::launcher

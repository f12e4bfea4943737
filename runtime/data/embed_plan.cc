#include "runtime/data/embed_plan.h"

#include "base/error.h"
#include "models/codec/haar.h"
#include "models/text/hashed_text.h"
#include "runtime/data/video_extent.h"

namespace sprocket::data {
namespace {

constexpr int64_t kDefaultTokens = 64, kDefaultDim = 256, kDefaultChannels = 16;
constexpr double kDefaultFps = 16;
constexpr int64_t kMostExtent = 1 << 16;

std::vector<std::string> video_problems(const EmbedOptions& options) {
  const bool extents = options.width || options.height || options.frames;
  if (!options.like.empty()) {
    if (!extents && !options.channels && !options.fps) return {};
    return {"like: the data set says width, height, frames, channels and fps; give either"};
  }
  if (!options.width || !options.height || !options.frames) {
    return {
        "expected the videos that the prompts are to become: like (a data set), or frames, "
        "height and width"};
  }
  std::vector<std::string> problems =
      extent_problems(*options.width, *options.height, *options.frames);
  const int64_t channels = options.channels.value_or(kDefaultChannels);
  if (channels < 1 || channels > kMostExtent) {
    problems.push_back(fmt::format("channels: {} is not in 1..{}", channels, kMostExtent));
  }
  const double fps = options.fps.value_or(kDefaultFps);
  if (!(fps > 0 && fps <= 1000)) {
    problems.push_back(fmt::format("fps: expected 0 < fps <= 1000, found {}", fps));
  }
  return problems;
}

std::vector<std::string> problems_of(const EmbedOptions& options) {
  std::vector<std::string> problems = video_problems(options);
  const auto require = [&](bool good, std::string text) {
    if (!good) problems.push_back(std::move(text));
  };
  require(options.prompts.empty() != options.manifest.empty(),
          "expected either prompts or a manifest");
  const bool manifest = !options.manifest.empty();
  require(!manifest || !options.negative, "negative: a manifest names its own");
  require(!manifest || (!options.tokens && !options.dim),
          "text tokens, text dim: the embeddings of a manifest have their own");
  for (const auto& [name, value] :
       {std::pair{"text tokens", options.tokens}, {"text dim", options.dim}}) {
    require(!value || (*value >= 1 && *value <= kMostExtent),
            fmt::format("{}: {} is not in 1..{}", name, value.value_or(0), kMostExtent));
  }
  require(!options.shift || *options.shift > 0, "shift: expected a positive number");
  require(!options.output.empty(), "output: expected a folder");
  require(options.shard_bytes >= 1, "shard bytes: expected 1 or more");
  return problems;
}

VideoInfo video_of(const Index& index) {
  const SampleInfo& sample = index.samples.front();
  return {sample.shape,
          sample.frames,
          sample.fps,
          sample.width,
          sample.height,
          index.shift,
          LatentCoding{index.codec, index.statistics}};
}

VideoInfo video_of(const EmbedOptions& options) {
  return {{options.channels.value_or(kDefaultChannels), codec::latent_frames(*options.frames),
           *options.height / codec::kStrideH, *options.width / codec::kStrideW},
          *options.frames,
          options.fps.value_or(kDefaultFps),
          static_cast<int>(*options.width),
          static_cast<int>(*options.height),
          std::nullopt,
          std::nullopt};
}

TextInfo embedder_of(const EmbedOptions& options, const std::optional<Index>& like) {
  const bool computed = options.manifest.empty();
  if (!like) {
    if (!computed) return {"precomputed", 0, 0, 0};
    return {"hashed", text::kHashedTextVersion, options.tokens.value_or(kDefaultTokens),
            options.dim.value_or(kDefaultDim)};
  }
  const TextInfo& theirs = like->text;
  const std::string expected = fmt::format("{}: its text is \"{}\" of {} x {} (tokens x dim)",
                                           options.like, theirs.name, theirs.tokens, theirs.dim);
  if (computed != (theirs.name == "hashed")) {
    throw ConfigError(fmt::format("{}; expected {}", expected,
                                  computed ? "a manifest that names embeddings, found prompts alone"
                                           : "prompts alone, found a manifest"));
  }
  if (options.tokens.value_or(theirs.tokens) != theirs.tokens ||
      options.dim.value_or(theirs.dim) != theirs.dim) {
    throw ConfigError(fmt::format("{}, found {} x {}", expected,
                                  options.tokens.value_or(theirs.tokens),
                                  options.dim.value_or(theirs.dim)));
  }
  return theirs;
}

}  // namespace

EmbedPlan plan_embedding(const EmbedOptions& options) {
  const auto problems = problems_of(options);
  if (!problems.empty()) throw ConfigError(fmt::format("{}", fmt::join(problems, "\n")));
  std::optional<Index> like;
  if (!options.like.empty()) like = read_index(options.like);
  EmbedPlan plan;
  plan.text = embedder_of(options, like);
  plan.video = like ? video_of(*like) : video_of(options);
  if (options.shift) plan.video.shift = options.shift;
  plan.list = options.manifest.empty() ? read_prompt_lines(options.prompts)
                                       : read_prompt_manifest(options.manifest);
  if (options.negative) {
    require_utf8(*options.negative, "negative prompt");
    plan.list.negative = PromptItem{*options.negative, ""};
  }
  return plan;
}

}  // namespace sprocket::data

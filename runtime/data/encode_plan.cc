#include "runtime/data/encode_plan.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/json_depth.h"
#include "models/codec/haar.h"
#include "runtime/data/video_extent.h"

namespace sprocket::data {
namespace {

std::vector<std::string> problems_of(const EncodeOptions& options) {
  std::vector<std::string> problems =
      extent_problems(options.width, options.height, options.frames);
  const auto require = [&](bool good, std::string text) {
    if (!good) problems.push_back(std::move(text));
  };
  require(options.videos.empty() != options.manifest.empty(),
          "expected either videos or a manifest");
  require(options.clip_stride >= 0, "clip stride: expected 0 or more frames");
  require(options.max_clips >= 0, "clips per video: expected 0 (all) or more");
  require(options.fps >= 0 && options.fps <= 1000, "fps: expected 0 (the video's own) to 1000");
  require(options.frame_stride >= 1, "frame stride: expected 1 or more");
  require(options.start_frame >= 0, "start frame: expected 0 or more");
  require(options.channels >= 1 && options.channels <= codec::kHaarCoefficients,
          fmt::format("channels: {} is not in 1..{}", options.channels, codec::kHaarCoefficients));
  require(options.text == "hashed" || options.text == "precomputed",
          fmt::format("text: \"{}\" is none of: hashed, precomputed", options.text));
  require(options.text != "precomputed" || !options.manifest.empty(),
          "text: precomputed embeddings are named by a manifest");
  require(options.tokens >= 1 && options.tokens <= 1 << 16, "text tokens: expected 1..65536");
  require(options.dim >= 1 && options.dim <= 1 << 16, "text dim: expected 1..65536");
  require(!options.output.empty(), "output: expected a folder");
  require(options.shard_bytes >= 1, "shard bytes: expected 1 or more");
  return problems;
}

EncodeItem parse_line(const std::string& line, const std::string& where,
                      const EncodeOptions& options) {
  nlohmann::json json;
  try {
    json = parse_bounded_json<nlohmann::json>(line, where);
  } catch (const nlohmann::json::exception& error) {
    throw InputError(fmt::format("{}: is not valid JSON: {}", where, error.what()));
  }
  if (!json.is_object()) throw InputError(fmt::format("{}: expected a JSON object", where));
  static const std::set<std::string> kTexts = {"video", "caption", "text"};
  static const std::set<std::string> kNumbers = {"width", "height", "frames"};
  for (const auto& [key, value] : json.items()) {
    if (!kTexts.contains(key) && !kNumbers.contains(key)) {
      throw InputError(fmt::format("{}: unknown key \"{}\"; known: {}, {}", where, key,
                                   fmt::join(kTexts, ", "), fmt::join(kNumbers, ", ")));
    }
    if (kTexts.contains(key) ? !value.is_string() : !value.is_number_unsigned()) {
      throw InputError(fmt::format("{}: {}: expected a {}, found {}", where, key,
                                   kTexts.contains(key) ? "string" : "positive integer",
                                   value.dump().substr(0, 40)));
    }
  }
  if (!json.contains("video")) throw InputError(fmt::format("{}: \"video\" is missing", where));
  const auto folder = std::filesystem::path(options.manifest).parent_path();
  EncodeItem item;
  item.video = (folder / json["video"].get<std::string>()).string();
  item.caption = json.value("caption", options.caption);
  const auto width = json.value("width", static_cast<int64_t>(options.width));
  const auto height = json.value("height", static_cast<int64_t>(options.height));
  item.frames = json.value("frames", options.frames);
  const auto problems = extent_problems(width, height, item.frames);
  if (!problems.empty()) {
    throw InputError(fmt::format("{}: {}", where, fmt::join(problems, "; ")));
  }
  item.width = static_cast<int>(width);
  item.height = static_cast<int>(height);
  const bool precomputed = options.text == "precomputed";
  if (precomputed != json.contains("text")) {
    throw InputError(fmt::format("{}: \"text\" is {}", where,
                                 precomputed ? "missing, expected the file of an embedding"
                                             : "given, but the text embedder is \"hashed\""));
  }
  if (precomputed) item.text_file = (folder / json["text"].get<std::string>()).string();
  return item;
}

}  // namespace

std::vector<EncodeItem> plan_encoding(const EncodeOptions& options) {
  const auto problems = problems_of(options);
  if (!problems.empty()) throw ConfigError(fmt::format("{}", fmt::join(problems, "\n")));
  std::vector<EncodeItem> items;
  for (const std::string& video : options.videos) {
    items.push_back({video, options.caption, "", options.width, options.height, options.frames});
  }
  if (options.manifest.empty()) return items;
  std::ifstream stream(options.manifest);
  if (!stream) {
    throw InputError(
        fmt::format("{}: cannot be opened: {}", options.manifest, std::strerror(errno)));
  }
  std::string line;
  for (int number = 1; std::getline(stream, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    items.push_back(parse_line(line, fmt::format("{}:{}", options.manifest, number), options));
  }
  if (items.empty()) {
    throw InputError(fmt::format("{}: expected at least one line, found none", options.manifest));
  }
  return items;
}

}  // namespace sprocket::data

#include "runtime/data/prompt_index.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "base/error.h"
#include "runtime/data/index_parts.h"
#include "runtime/data/json_node.h"

namespace sprocket::data {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kNegativeId[] = "negative";

VideoInfo read_video(const JsonNode& node, const std::string& file) {
  VideoInfo video;
  const JsonNode codec = node.at("codec");
  std::optional<int> channels;
  if (!codec.is_null()) {
    video.coding.emplace();
    video.coding->codec = read_codec(codec);
    channels = video.coding->codec.channels;
    video.coding->statistics = read_statistics(node, *channels);
  }
  video.shape = read_shape(node.at("latent"), channels, file);
  video.frames = node.at("frames").integer(1, kLargestJsonInteger);
  video.fps = node.at("fps").positive();
  video.width = static_cast<int>(node.at("width").integer(1, kLargestInt));
  video.height = static_cast<int>(node.at("height").integer(1, kLargestInt));
  if (!node.at("shift").is_null()) video.shift = node.at("shift").positive();
  return video;
}

Json to_json(const VideoInfo& video) {
  Json json;
  json["latent"] = data::to_json(video.shape);
  json["frames"] = video.frames;
  json["fps"] = video.fps;
  json["width"] = video.width;
  json["height"] = video.height;
  json["shift"] = video.shift ? Json(*video.shift) : Json(nullptr);
  json["codec"] = nullptr;
  if (video.coding) {
    json["codec"] = data::to_json(video.coding->codec);
    json["mean"] = video.coding->statistics.mean;
    json["std"] = video.coding->statistics.std;
  }
  return json;
}

}  // namespace

PromptIndex parse_prompt_index(const std::string& text, const std::string& file) {
  const Json json = parse_json(text, file);
  const JsonNode root(json, file);
  PromptIndex index;
  index.schema_version =
      read_schema_version(root, file, kPromptSchemaVersion, "embed the prompts again");
  index.text = read_text_info(root.at("text"));
  index.video = read_video(root.at("video"), file);
  if (!root.at("negative").is_null()) index.negative = root.at("negative").text();
  index.shards = read_shards(root.at("shards"));
  const auto prompts = root.at("prompts").list();
  if (prompts.empty()) root.at("prompts").fail("at least one prompt");
  std::unordered_set<std::string> ids = {kNegativeId};
  for (const JsonNode& node : prompts) {
    const auto last_shard = static_cast<int64_t>(index.shards.size()) - 1;
    index.prompts.push_back(
        {node.at("id").text(), node.at("shard").integer(0, last_shard), node.at("text").text()});
    const std::string& id = index.prompts.back().id;
    if (id.empty() || !ids.insert(id).second) {
      node.at("id").fail("a name used only once, not \"negative\"");
    }
  }
  return index;
}

PromptIndex read_prompt_index(const std::string& folder) {
  const std::string file = folder + "/" + kPromptIndexFile;
  return parse_prompt_index(read_index_file(file, "a prompt set's index"), file);
}

bool is_prompt_set(const std::string& folder) {
  std::error_code error;
  return std::filesystem::exists(folder + "/" + kPromptIndexFile, error);
}

std::string prompt_index_text(const PromptIndex& index) {
  Json json;
  json["schema_version"] = index.schema_version;
  json["text"] = data::to_json(index.text);
  json["video"] = to_json(index.video);
  json["negative"] = index.negative ? Json(*index.negative) : Json(nullptr);
  json["shards"] = data::to_json(index.shards);
  json["prompts"] = Json::array();
  for (const PromptInfo& prompt : index.prompts) {
    json["prompts"].push_back({{"id", prompt.id}, {"shard", prompt.shard}, {"text", prompt.text}});
  }
  return index_file_text(json);
}

std::string prompt_tensor_name(const PromptInfo& prompt) { return prompt.id + ".text"; }

}  // namespace sprocket::data

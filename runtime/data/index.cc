#include "runtime/data/index.h"

#include <nlohmann/json.hpp>
#include <unordered_set>

#include "base/error.h"
#include "runtime/data/index_parts.h"
#include "runtime/data/json_node.h"

namespace sprocket::data {
namespace {

using Json = nlohmann::ordered_json;

SampleInfo read_sample(const JsonNode& node, const Index& index, const std::string& file) {
  SampleInfo sample;
  sample.id = node.at("id").text();
  if (sample.id.empty()) node.at("id").fail("a name");
  sample.shard = node.at("shard").integer(0, static_cast<int64_t>(index.shards.size()) - 1);
  sample.shape =
      read_shape(node.at("latent"), index.codec.channels, fmt::format("{}: {}", file, sample.id));
  sample.caption = node.at("caption").text();
  sample.source = node.at("source").text();
  sample.first_frame = node.at("first_frame").integer(0, kLargestJsonInteger);
  sample.frames = node.at("frames").integer(1, kLargestJsonInteger);
  sample.fps = node.at("fps").positive();
  sample.width = static_cast<int>(node.at("width").integer(1, kLargestInt));
  sample.height = static_cast<int>(node.at("height").integer(1, kLargestInt));
  return sample;
}

}  // namespace

Index parse_index(const std::string& text, const std::string& file) {
  const Json json = parse_json(text, file);
  const JsonNode root(json, file);
  Index index;
  index.schema_version = read_schema_version(root, file, kSchemaVersion, "encode the data again");
  index.codec = read_codec(root.at("codec"));
  index.normalised = root.at("normalised").truth();
  index.statistics = read_statistics(root, index.codec.channels);
  if (!root.at("shift").is_null()) index.shift = root.at("shift").number();
  index.text = read_text_info(root.at("text"));
  index.shards = read_shards(root.at("shards"));
  const auto samples = root.at("samples").list();
  if (samples.empty()) root.at("samples").fail("at least one sample");
  std::unordered_set<std::string> ids;
  for (const JsonNode& node : samples) {
    index.samples.push_back(read_sample(node, index, file));
    if (!ids.insert(index.samples.back().id).second) node.at("id").fail("a name used only once");
  }
  return index;
}

Index read_index(const std::string& folder) {
  const std::string file = folder + "/index.json";
  return parse_index(read_index_file(file, "a data set's index"), file);
}

std::string index_text(const Index& index) {
  Json json;
  json["schema_version"] = index.schema_version;
  json["codec"] = to_json(index.codec);
  json["normalised"] = index.normalised;
  json["mean"] = index.statistics.mean;
  json["std"] = index.statistics.std;
  json["shift"] = index.shift ? Json(*index.shift) : Json(nullptr);
  json["text"] = to_json(index.text);
  json["shards"] = to_json(index.shards);
  json["samples"] = Json::array();
  for (const SampleInfo& sample : index.samples) {
    json["samples"].push_back({{"id", sample.id},
                               {"shard", sample.shard},
                               {"latent", to_json(sample.shape)},
                               {"caption", sample.caption},
                               {"source", sample.source},
                               {"first_frame", sample.first_frame},
                               {"frames", sample.frames},
                               {"fps", sample.fps},
                               {"width", sample.width},
                               {"height", sample.height}});
  }
  return index_file_text(json);
}

std::string latent_name(const SampleInfo& sample) { return sample.id + ".latent"; }
std::string text_name(const SampleInfo& sample) { return sample.id + ".text"; }
std::string to_string(const LatentShape& shape) {
  return fmt::format("[{}, {}, {}, {}]", shape.c, shape.t, shape.h, shape.w);
}

}  // namespace sprocket::data

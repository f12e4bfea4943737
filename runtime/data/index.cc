#include "runtime/data/index.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "base/error.h"
#include "models/safetensors/header.h"
#include "runtime/data/file_hash.h"

namespace sprocket::data {
namespace {

using Json = nlohmann::ordered_json;

// A JSON value that knows where it is, for messages.
class Node {
 public:
  Node(const Json& json, const std::string& file, std::string path)
      : json_(json), file_(file), path_(std::move(path)) {}

  [[noreturn]] void fail(const std::string& expected) const {
    std::string found = json_.dump(-1, ' ', true, Json::error_handler_t::replace);
    if (found.size() > 60) found = found.substr(0, 60) + "…";
    throw InputError(fmt::format("{}: {}: expected {}, found {}", file_,
                                 path_.empty() ? "index" : path_, expected, found));
  }

  Node at(const std::string& key) const {
    const std::string path = path_.empty() ? key : path_ + "." + key;
    if (!json_.is_object()) fail("an object");
    const auto found = json_.find(key);
    if (found == json_.end()) throw InputError(fmt::format("{}: {} is missing", file_, path));
    return {*found, file_, path};
  }

  std::vector<Node> list() const {
    if (!json_.is_array()) fail("a list");
    std::vector<Node> nodes;
    for (size_t i = 0; i < json_.size(); ++i) {
      nodes.emplace_back(json_[i], file_, fmt::format("{}[{}]", path_, i));
    }
    return nodes;
  }

  std::string text() const {
    if (!json_.is_string()) fail("a string");
    return json_.get<std::string>();
  }

  bool truth() const {
    if (!json_.is_boolean()) fail("true or false");
    return json_.get<bool>();
  }

  int64_t integer(int64_t low, int64_t high) const {
    const bool fits =
        json_.is_number_unsigned()
            ? json_.get<uint64_t>() <= static_cast<uint64_t>(high) && json_.get<int64_t>() >= low
            : json_.is_number_integer() && json_.get<int64_t>() >= low &&
                  json_.get<int64_t>() <= high;
    if (!fits) fail(fmt::format("an integer in {}..{}", low, high));
    return json_.get<int64_t>();
  }

  double number() const {
    if (!json_.is_number() || !std::isfinite(json_.get<double>())) fail("a number");
    return json_.get<double>();
  }

  bool is_null() const { return json_.is_null(); }

  // The name of a file in the index's own folder.
  std::string file_name() const {
    const std::string name = text();
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
        name.find('\0') != std::string::npos) {
      fail("the name of a file in the data set's folder");
    }
    return name;
  }

 private:
  const Json& json_;
  const std::string& file_;
  std::string path_;
};

constexpr int64_t kLarge = int64_t{1} << 53;  // what JSON numbers hold everywhere
constexpr int64_t kInt = (int64_t{1} << 31) - 1;

std::vector<float> read_floats(const Node& node, int channels, bool positive) {
  std::vector<float> values;
  for (const Node& item : node.list()) {
    values.push_back(static_cast<float>(item.number()));
    if (!std::isfinite(values.back()) || (positive && !(values.back() > 0))) {
      item.fail(positive ? "a positive number" : "a number");
    }
  }
  if (values.size() != static_cast<size_t>(channels)) {
    node.fail(fmt::format("{} numbers, one per channel", channels));
  }
  return values;
}

ShardInfo read_shard(const Node& node) {
  ShardInfo shard;
  shard.file = node.at("file").file_name();
  shard.bytes = static_cast<uint64_t>(node.at("bytes").integer(0, kLarge));
  const auto hash = parse_hash(node.at("xxh3").text());
  if (!hash) node.at("xxh3").fail("16 hexadecimal digits");
  shard.xxh3 = *hash;
  return shard;
}

SampleInfo read_sample(const Node& node, const Index& index, const std::string& file) {
  SampleInfo sample;
  sample.id = node.at("id").text();
  if (sample.id.empty()) node.at("id").fail("a name");
  sample.shard = node.at("shard").integer(0, static_cast<int64_t>(index.shards.size()) - 1);
  const auto dims = node.at("latent").list();
  if (dims.size() != 4) node.at("latent").fail("the 4 dimensions [C, T, H, W]");
  int64_t shape[4];
  for (size_t i = 0; i < 4; ++i) shape[i] = dims[i].integer(1, kInt);
  safetensors::checked_elements(shape, sizeof(float), fmt::format("{}: {}", file, sample.id));
  sample.shape = {shape[0], shape[1], shape[2], shape[3]};
  if (sample.shape.c != index.codec.channels) {
    dims[0].fail(fmt::format("the codec's {} channels", index.codec.channels));
  }
  sample.caption = node.at("caption").text();
  sample.source = node.at("source").text();
  sample.first_frame = node.at("first_frame").integer(0, kLarge);
  sample.frames = node.at("frames").integer(1, kLarge);
  sample.fps = node.at("fps").number();
  if (!(sample.fps > 0)) node.at("fps").fail("a positive number");
  sample.width = static_cast<int>(node.at("width").integer(1, kInt));
  sample.height = static_cast<int>(node.at("height").integer(1, kInt));
  return sample;
}

}  // namespace

Index parse_index(const std::string& text, const std::string& file) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    throw InputError(fmt::format("{}: is not valid JSON: {}", file, error.what()));
  }
  const Node root(json, file, "");
  Index index;
  // The version comes first: nothing else of a newer schema can be judged.
  index.schema_version = static_cast<int>(root.at("schema_version").integer(1, kInt));
  if (index.schema_version > kSchemaVersion) {
    throw InputError(fmt::format(
        "{}: schema_version: found {}, the newest that this program reads is {}; use a newer "
        "sprocket or encode the data again",
        file, index.schema_version, kSchemaVersion));
  }
  const Node codec = root.at("codec");
  index.codec.name = codec.at("name").text();
  index.codec.version = static_cast<int>(codec.at("version").integer(0, kInt));
  index.codec.channels = static_cast<int>(codec.at("channels").integer(1, 1 << 16));
  index.normalised = root.at("normalised").truth();
  index.statistics.mean = read_floats(root.at("mean"), index.codec.channels, false);
  index.statistics.std = read_floats(root.at("std"), index.codec.channels, true);
  if (!root.at("shift").is_null()) index.shift = root.at("shift").number();
  const Node text_info = root.at("text");
  index.text.name = text_info.at("name").text();
  if (index.text.name != "hashed" && index.text.name != "precomputed") {
    text_info.at("name").fail("\"hashed\" or \"precomputed\"");
  }
  index.text.version = static_cast<int>(text_info.at("version").integer(0, kInt));
  index.text.tokens = text_info.at("tokens").integer(1, 1 << 20);
  index.text.dim = text_info.at("dim").integer(1, 1 << 20);
  for (const Node& node : root.at("shards").list()) index.shards.push_back(read_shard(node));
  const auto samples = root.at("samples").list();
  if (samples.empty()) root.at("samples").fail("at least one sample");
  if (index.shards.empty()) root.at("shards").fail("at least one shard");
  std::unordered_set<std::string> ids;
  for (const Node& node : samples) {
    index.samples.push_back(read_sample(node, index, file));
    if (!ids.insert(index.samples.back().id).second) node.at("id").fail("a name used only once");
  }
  return index;
}

Index read_index(const std::string& folder) {
  const std::string file = folder + "/index.json";
  errno = 0;
  std::ifstream stream(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  if (!stream.good() && text.empty()) {
    throw InputError(fmt::format("{}: expected a data set's index: {}", file,
                                 errno == 0 ? "cannot be read" : std::strerror(errno)));
  }
  return parse_index(text, file);
}

std::string index_text(const Index& index) {
  Json json;
  json["schema_version"] = index.schema_version;
  json["codec"] = {{"name", index.codec.name},
                   {"version", index.codec.version},
                   {"channels", index.codec.channels}};
  json["normalised"] = index.normalised;
  json["mean"] = index.statistics.mean;
  json["std"] = index.statistics.std;
  json["shift"] = index.shift ? Json(*index.shift) : Json(nullptr);
  json["text"] = {{"name", index.text.name},
                  {"version", index.text.version},
                  {"tokens", index.text.tokens},
                  {"dim", index.text.dim}};
  json["shards"] = Json::array();
  for (const ShardInfo& shard : index.shards) {
    json["shards"].push_back(
        {{"file", shard.file}, {"bytes", shard.bytes}, {"xxh3", hash_text(shard.xxh3)}});
  }
  json["samples"] = Json::array();
  for (const SampleInfo& sample : index.samples) {
    const LatentShape& shape = sample.shape;
    json["samples"].push_back({{"id", sample.id},
                               {"shard", sample.shard},
                               {"latent", {shape.c, shape.t, shape.h, shape.w}},
                               {"caption", sample.caption},
                               {"source", sample.source},
                               {"first_frame", sample.first_frame},
                               {"frames", sample.frames},
                               {"fps", sample.fps},
                               {"width", sample.width},
                               {"height", sample.height}});
  }
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string latent_name(const SampleInfo& sample) { return sample.id + ".latent"; }
std::string text_name(const SampleInfo& sample) { return sample.id + ".text"; }
std::string to_string(const LatentShape& shape) {
  return fmt::format("[{}, {}, {}, {}]", shape.c, shape.t, shape.h, shape.w);
}

}  // namespace sprocket::data

#include "runtime/data/index_parts.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/safetensors/header.h"
#include "runtime/data/file_hash.h"

namespace sprocket::data {
namespace {

using Json = nlohmann::ordered_json;

std::vector<float> read_floats(const JsonNode& node, int channels, bool positive) {
  std::vector<float> values;
  for (const JsonNode& item : node.list()) {
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

}  // namespace

std::string read_index_file(const std::string& path, const std::string& what) {
  errno = 0;
  std::ifstream stream(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(stream), {}};
  if (!stream.good() && text.empty()) {
    throw InputError(fmt::format("{}: expected {}: {}", path, what,
                                 errno == 0 ? "cannot be read" : std::strerror(errno)));
  }
  return text;
}

int read_schema_version(const JsonNode& root, const std::string& file, int newest,
                        const std::string& remedy) {
  const int version = static_cast<int>(root.at("schema_version").integer(1, kLargestInt));
  if (version > newest) {
    throw InputError(
        fmt::format("{}: schema_version: found {}, the newest that this program reads is {}; use a "
                    "newer sprocket or {}",
                    file, version, newest, remedy));
  }
  return version;
}

CodecInfo read_codec(const JsonNode& node) {
  return {node.at("name").text(), static_cast<int>(node.at("version").integer(0, kLargestInt)),
          static_cast<int>(node.at("channels").integer(1, 1 << 16))};
}

codec::ChannelStatistics read_statistics(const JsonNode& node, int channels) {
  return {read_floats(node.at("mean"), channels, false),
          read_floats(node.at("std"), channels, true)};
}

TextInfo read_text_info(const JsonNode& node) {
  TextInfo text;
  text.name = node.at("name").text();
  if (text.name != "hashed" && text.name != "precomputed") {
    node.at("name").fail("\"hashed\" or \"precomputed\"");
  }
  text.version = static_cast<int>(node.at("version").integer(0, kLargestInt));
  text.tokens = node.at("tokens").integer(1, 1 << 20);
  text.dim = node.at("dim").integer(1, 1 << 20);
  return text;
}

LatentShape read_shape(const JsonNode& node, std::optional<int> channels,
                       const std::string& where) {
  const auto dims = node.list();
  if (dims.size() != 4) node.fail("the 4 dimensions [C, T, H, W]");
  int64_t shape[4];
  for (size_t i = 0; i < 4; ++i) shape[i] = dims[i].integer(1, kLargestInt);
  safetensors::checked_elements(shape, sizeof(float), where);
  if (channels && shape[0] != *channels) {
    dims[0].fail(fmt::format("the codec's {} channels", *channels));
  }
  return {shape[0], shape[1], shape[2], shape[3]};
}

std::vector<ShardInfo> read_shards(const JsonNode& node) {
  std::vector<ShardInfo> shards;
  for (const JsonNode& item : node.list()) {
    ShardInfo shard;
    shard.file = item.at("file").file_name();
    shard.bytes = static_cast<uint64_t>(item.at("bytes").integer(0, kLargestJsonInteger));
    const auto hash = parse_hash(item.at("xxh3").text());
    if (!hash) item.at("xxh3").fail("16 hexadecimal digits");
    shard.xxh3 = *hash;
    shards.push_back(std::move(shard));
  }
  if (shards.empty()) node.fail("at least one shard");
  return shards;
}

Json to_json(const CodecInfo& codec) {
  return {{"name", codec.name}, {"version", codec.version}, {"channels", codec.channels}};
}

Json to_json(const TextInfo& text) {
  return {
      {"name", text.name}, {"version", text.version}, {"tokens", text.tokens}, {"dim", text.dim}};
}

Json to_json(const LatentShape& shape) { return Json::array({shape.c, shape.t, shape.h, shape.w}); }

Json to_json(const std::vector<ShardInfo>& shards) {
  Json json = Json::array();
  for (const ShardInfo& shard : shards) {
    json.push_back({{"file", shard.file}, {"bytes", shard.bytes}, {"xxh3", hash_text(shard.xxh3)}});
  }
  return json;
}

std::string index_file_text(const Json& json) {
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace sprocket::data

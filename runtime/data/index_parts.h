// The parts that the indexes of data sets and of prompt sets have in common, from and to JSON.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "runtime/data/index.h"
#include "runtime/data/json_node.h"

namespace sprocket::data {

// All of a file. Throws InputError, calling it `what` ("a data set's index").
std::string read_index_file(const std::string& path, const std::string& what);

// `root`.schema_version, which must not be newer than `newest`; `remedy` ("encode the data again")
// for who has no newer program. Read it before anything else: nothing of a newer schema can be
// judged.
int read_schema_version(const JsonNode& root, const std::string& file, int newest,
                        const std::string& remedy);

CodecInfo read_codec(const JsonNode& node);
// Of `channels` channels, from node.mean and node.std.
codec::ChannelStatistics read_statistics(const JsonNode& node, int channels);
TextInfo read_text_info(const JsonNode& node);
// [C, T, H, W] of `channels` channels, where a codec says how many. `where` is for messages.
LatentShape read_shape(const JsonNode& node, std::optional<int> channels, const std::string& where);
std::vector<ShardInfo> read_shards(const JsonNode& node);  // at least one

nlohmann::ordered_json to_json(const CodecInfo& codec);
nlohmann::ordered_json to_json(const TextInfo& text);
nlohmann::ordered_json to_json(const LatentShape& shape);
nlohmann::ordered_json to_json(const std::vector<ShardInfo>& shards);
// As the file has it.
std::string index_file_text(const nlohmann::ordered_json& json);

}  // namespace sprocket::data

#include "runtime/data/json_node.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_depth.h"

namespace sprocket::data {

using Json = nlohmann::ordered_json;

Json parse_json(const std::string& text, const std::string& file) {
  try {
    return parse_bounded_json<Json>(text, file);
  } catch (const nlohmann::json::exception& error) {
    throw InputError(fmt::format("{}: is not valid JSON: {}", file, error.what()));
  }
}

JsonNode::JsonNode(const Json& json, const std::string& file, std::string path)
    : json_(json), file_(file), path_(std::move(path)) {}

void JsonNode::fail(const std::string& expected) const {
  std::string found = json_.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (found.size() > 60) found = found.substr(0, 60) + "…";
  throw InputError(fmt::format("{}: {}expected {}, found {}", file_,
                               path_.empty() ? "" : path_ + ": ", expected, found));
}

JsonNode JsonNode::at(const std::string& key) const {
  const std::string path = path_.empty() ? key : path_ + "." + key;
  if (!json_.is_object()) fail("an object");
  const auto found = json_.find(key);
  if (found == json_.end()) throw InputError(fmt::format("{}: {} is missing", file_, path));
  return {*found, file_, path};
}

bool JsonNode::has(const std::string& key) const { return json_.contains(key); }

void JsonNode::require_keys_of(const std::set<std::string>& known) const {
  if (!json_.is_object()) fail("an object");
  for (const auto& [key, value] : json_.items()) {
    if (known.contains(key)) continue;
    throw InputError(fmt::format("{}: {}unknown key \"{}\"; known: {}", file_,
                                 path_.empty() ? "" : path_ + ": ", key, fmt::join(known, ", ")));
  }
}

std::vector<JsonNode> JsonNode::list() const {
  if (!json_.is_array()) fail("a list");
  std::vector<JsonNode> nodes;
  for (size_t i = 0; i < json_.size(); ++i) {
    nodes.emplace_back(json_[i], file_, fmt::format("{}[{}]", path_, i));
  }
  return nodes;
}

std::string JsonNode::text() const {
  if (!json_.is_string()) fail("a string");
  return json_.get<std::string>();
}

bool JsonNode::truth() const {
  if (!json_.is_boolean()) fail("true or false");
  return json_.get<bool>();
}

int64_t JsonNode::integer(int64_t low, int64_t high) const {
  const bool fits =
      json_.is_number_unsigned()
          ? json_.get<uint64_t>() <= static_cast<uint64_t>(high) && json_.get<int64_t>() >= low
          : json_.is_number_integer() && json_.get<int64_t>() >= low &&
                json_.get<int64_t>() <= high;
  if (!fits) fail(fmt::format("an integer in {}..{}", low, high));
  return json_.get<int64_t>();
}

double JsonNode::number() const {
  if (!json_.is_number() || !std::isfinite(json_.get<double>())) fail("a number");
  return json_.get<double>();
}

double JsonNode::positive() const {
  if (!(number() > 0)) fail("a positive number");
  return number();
}

bool JsonNode::is_null() const { return json_.is_null(); }

std::string JsonNode::file_name() const {
  const std::string name = text();
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
      name.find('\0') != std::string::npos) {
    fail("the name of a file in the data set's folder");
  }
  return name;
}

}  // namespace sprocket::data

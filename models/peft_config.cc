#include "models/peft_config.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_depth.h"

namespace sprocket::models {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kMetadata = "lora_adapter_metadata";
constexpr std::string_view kPeftPrefix = "base_model.model.";
constexpr std::string_view kPipelinePrefix = "transformer.";

std::string read_text(const fs::path& path) {
  std::ifstream stream(path);
  if (!stream) {
    throw InputError(fmt::format(
        "{}: cannot be opened: {}; names of tensors beside it start with {}, as those of PEFT, "
        "which has the alpha of its adapters in this file",
        path.string(), std::strerror(errno), kPeftPrefix));
  }
  return {std::istreambuf_iterator<char>(stream), {}};
}

// The fields of one JSON object, each as it is or behind `transformer.`.
class Fields {
 public:
  Fields(const std::string& source, const std::string& text) : source_(source) {
    try {
      json_ = parse_bounded_json<Json>(text, source);
    } catch (const Json::exception& error) {
      throw InputError(fmt::format("{}: is not valid JSON: {}", source_, error.what()));
    }
    if (!json_.is_object()) {
      throw InputError(fmt::format("{}: expected an object, found {}", source_, json_.type_name()));
    }
  }

  // Null where there is none, or null is written.
  Json at(const std::string& name) const {
    const auto plain = json_.find(name);
    if (plain != json_.end()) return *plain;
    const auto prefixed = json_.find(std::string(kPipelinePrefix) + name);
    return prefixed != json_.end() ? *prefixed : Json();
  }

  double number(const std::string& name, const Json& value) const {
    if (!value.is_number()) refuse(name, value, "a number");
    return value.get<double>();
  }

  [[noreturn]] void refuse(const std::string& name, const Json& value,
                           const std::string& legal) const {
    throw InputError(fmt::format("{}: {}: expected {}, found {}", source_, name, legal,
                                 value.dump().substr(0, 80)));
  }

 private:
  std::string source_;
  Json json_;
};

// Those that leave the base weights as they are.
bool keeps_base_weights(const Json& initialisation) {
  constexpr const char* kNames[] = {"gaussian", "eva", "orthogonal"};
  return initialisation.is_null() || initialisation.is_boolean() ||
         std::any_of(std::begin(kNames), std::end(kNames),
                     [&](const char* name) { return initialisation == name; });
}

// PEFT's: of the whole name of a layer, or of what follows a dot in it.
std::regex layers_like(const std::string& pattern, const Fields& fields) {
  try {
    return std::regex("(.*\\.)?(" + pattern + ")");
  } catch (const std::regex_error&) {
    fields.refuse("alpha_pattern", pattern, "a regular expression");
  }
}

PeftConfig parse(const std::string& source, const std::string& text) {
  const Fields fields(source, text);
  PeftConfig config;
  config.source = source;
  config.alpha = fields.number("lora_alpha", fields.at("lora_alpha"));
  if (const Json kind = fields.at("peft_type"); !kind.is_null() && kind != "LORA") {
    fields.refuse("peft_type", kind, "\"LORA\"");
  }
  if (const Json start = fields.at("init_lora_weights"); !keeps_base_weights(start)) {
    fields.refuse("init_lora_weights", start,
                  "true, false, \"gaussian\", \"eva\" or \"orthogonal\" (other ways to start "
                  "change the base weights; PEFT converts such adapters when it saves them with "
                  "path_initial_model_for_weight_conversion)");
  }
  if (const Json flag = fields.at("use_rslora"); !flag.is_null()) {
    if (!flag.is_boolean()) fields.refuse("use_rslora", flag, "true or false");
    config.rank_stabilised = flag.get<bool>();
  }
  if (const Json patterns = fields.at("alpha_pattern"); !patterns.is_null()) {
    if (!patterns.is_object()) fields.refuse("alpha_pattern", patterns, "an object");
    for (const auto& [pattern, alpha] : patterns.items()) {
      config.alpha_of_layers.emplace_back(layers_like(pattern, fields),
                                          fields.number("alpha_pattern of " + pattern, alpha));
    }
  }
  return config;
}

}  // namespace

double PeftConfig::factor(const std::string& layer, int64_t rank) const {
  const auto own =
      std::find_if(alpha_of_layers.begin(), alpha_of_layers.end(),
                   [&](const auto& other) { return std::regex_match(layer, other.first); });
  const double size = static_cast<double>(rank);
  return (own == alpha_of_layers.end() ? alpha : own->second) /
         (rank_stabilised ? std::sqrt(size) : size);
}

std::optional<PeftConfig> find_peft_config(const safetensors::File& file) {
  if (const auto found = file.metadata().find(kMetadata); found != file.metadata().end()) {
    return parse(fmt::format("{}: metadata {}", file.path(), kMetadata), found->second);
  }
  const auto is_of_peft = [](const auto& tensor) { return tensor.name.starts_with(kPeftPrefix); };
  if (std::none_of(file.tensors().begin(), file.tensors().end(), is_of_peft)) return std::nullopt;
  const fs::path beside = fs::path(file.path()).parent_path() / "adapter_config.json";
  return parse(beside.string(), read_text(beside));
}

}  // namespace sprocket::models

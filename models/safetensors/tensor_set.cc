#include "models/safetensors/tensor_set.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/json_depth.h"

namespace sprocket::safetensors {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kIndexEnding = ".safetensors.index.json";
constexpr std::string_view kFileEnding = ".safetensors";

fs::path file_in_folder(const fs::path& folder) {
  std::vector<fs::path> indexes, files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(kIndexEnding)) indexes.push_back(entry.path());
    if (name.ends_with(kFileEnding)) files.push_back(entry.path());
  }
  const auto& choice = indexes.empty() ? files : indexes;
  if (choice.size() != 1) {
    throw InputError(fmt::format(
        "{}: expected one *{} or, without one, a single *{} in this folder, found {} and {}",
        folder.string(), kIndexEnding, kFileEnding, indexes.size(), files.size()));
  }
  return choice.front();
}

// Tensor name -> shard file, with duplicate keys refused.
std::map<std::string, std::string> read_weight_map(const fs::path& path) {
  std::ifstream stream(path);
  if (!stream) {
    throw InputError(fmt::format("{}: cannot be opened: {}", path.string(), std::strerror(errno)));
  }
  std::vector<std::set<std::string>> keys;
  const auto callback = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    check_json_depth(depth, path.string());
    if (event == nlohmann::json::parse_event_t::object_start) keys.emplace_back();
    if (event == nlohmann::json::parse_event_t::object_end) keys.pop_back();
    if (event == nlohmann::json::parse_event_t::key) {
      const auto name = value.get<std::string>();
      if (!keys.back().insert(name).second) {
        throw InputError(fmt::format("{}: the key \"{}\" appears twice", path.string(), name));
      }
    }
    return true;
  };
  nlohmann::json index;
  try {
    index = nlohmann::json::parse(stream, callback);
  } catch (const nlohmann::json::exception& error) {
    throw InputError(fmt::format("{}: is not valid JSON: {}", path.string(), error.what()));
  }
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    throw InputError(fmt::format("{}: expected an object with a \"weight_map\"", path.string()));
  }
  std::map<std::string, std::string> weight_map;
  for (const auto& [name, file] : index["weight_map"].items()) {
    if (!file.is_string()) {
      throw InputError(fmt::format("{}: tensor \"{}\": expected the name of a file, found {}",
                                   path.string(), name, file.dump().substr(0, 40)));
    }
    const auto shard = file.get<std::string>();
    if (shard.empty() || shard == ".." || shard.find('/') != std::string::npos) {
      throw InputError(
          fmt::format("{}: tensor \"{}\": expected a file in the index's own folder, "
                      "found \"{}\"",
                      path.string(), name, shard));
    }
    weight_map[name] = shard;
  }
  return weight_map;
}

}  // namespace

TensorSet TensorSet::open(const std::string& path) {
  std::error_code ignored;
  const fs::path source = fs::is_directory(path, ignored) ? file_in_folder(path) : fs::path(path);
  TensorSet set;
  set.path_ = source.string();
  if (!set.path_.ends_with(".json")) {
    set.files_.push_back(File::open(set.path_));
    for (const TensorInfo& tensor : set.files_[0].tensors()) set.file_by_name_[tensor.name] = 0;
  } else {
    std::map<std::string, size_t> shards;
    for (const auto& [name, shard] : read_weight_map(source)) {
      const auto [position, is_new] = shards.try_emplace(shard, set.files_.size());
      if (is_new) set.files_.push_back(File::open((source.parent_path() / shard).string()));
      if (set.files_[position->second].find(name) == nullptr) {
        throw InputError(fmt::format("{}: tensor \"{}\": expected in {}, which does not hold it",
                                     set.path_, name, shard));
      }
      set.file_by_name_[name] = position->second;
    }
    for (size_t i = 0; i < set.files_.size(); ++i) {
      for (const TensorInfo& tensor : set.files_[i].tensors()) {
        const auto found = set.file_by_name_.find(tensor.name);
        if (found == set.file_by_name_.end() || found->second != i) {
          throw InputError(fmt::format(
              "{}: {} holds the tensor \"{}\", which the index {}", set.path_, set.files_[i].path(),
              tensor.name,
              found == set.file_by_name_.end() ? "does not list" : "expects elsewhere"));
        }
      }
    }
  }
  for (const auto& [name, file] : set.file_by_name_) set.names_.push_back(name);
  std::sort(set.names_.begin(), set.names_.end());
  return set;
}

bool TensorSet::contains(std::string_view name) const {
  return file_by_name_.contains(std::string(name));
}

const File& TensorSet::file_of(std::string_view name) const {
  const auto found = file_by_name_.find(std::string(name));
  if (found == file_by_name_.end()) {
    throw InputError(fmt::format("{}: expected a tensor \"{}\", found {} others and not this one",
                                 path_, name, names_.size()));
  }
  return files_[found->second];
}

const TensorInfo& TensorSet::at(std::string_view name) const { return file_of(name).at(name); }

std::span<const std::byte> TensorSet::data(std::string_view name) const {
  const File& file = file_of(name);
  return file.data(file.at(name));
}

std::vector<float> TensorSet::floats(std::string_view name) const {
  const File& file = file_of(name);
  return file.floats(file.at(name));
}

}  // namespace sprocket::safetensors

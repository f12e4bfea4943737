#include "runtime/data/folder_check.h"

#include <filesystem>

#include "base/error.h"
#include "models/safetensors/safetensors.h"
#include "runtime/data/file_hash.h"

namespace sprocket::data {

namespace fs = std::filesystem;

void require_folder(const std::string& folder, const std::string& what) {
  std::error_code error;
  if (fs::is_directory(folder, error)) return;
  throw InputError(fmt::format("{}: expected the folder of {}, found {}", folder, what,
                               fs::exists(folder, error) ? "a file" : "nothing"));
}

void check_files(const std::string& folder, const std::string& index_name,
                 const std::vector<ShardInfo>& shards, std::vector<std::string>* problems) {
  std::set<std::string> known = {index_name};
  for (const ShardInfo& shard : shards) {
    if (!known.insert(shard.file).second) {
      problems->push_back(fmt::format("{}: the index lists {} twice", folder, shard.file));
    }
  }
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!known.contains(name)) {
      problems->push_back(fmt::format("{}/{}: the index does not know this file", folder, name));
    }
  }
}

void check_tensors(const std::string& folder, const std::vector<ShardInfo>& shards,
                   const std::vector<std::set<std::string>>& tensors, const std::string& owner,
                   std::vector<std::string>* problems) {
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string path = folder + "/" + shards[i].file;
    try {
      const auto file = safetensors::File::open(path);
      for (const auto& tensor : file.tensors()) {
        if (!tensors[i].contains(tensor.name)) {
          problems->push_back(
              fmt::format("{}: tensor \"{}\" belongs to no {}", path, tensor.name, owner));
        }
      }
    } catch (const InputError& bad) {
      if (tensors[i].empty()) problems->emplace_back(bad.what());
    }
  }
}

std::string shard_table(const std::vector<ShardInfo>& shards, const std::set<int64_t>& damaged) {
  std::string text = "shards:\n";
  for (int64_t i = 0; i < std::ssize(shards); ++i) {
    text += fmt::format("  {}  {:>12} bytes  xxh3 {}{}\n", shards[i].file, shards[i].bytes,
                        hash_text(shards[i].xxh3), damaged.contains(i) ? "  DAMAGED" : "");
  }
  return text;
}

}  // namespace sprocket::data

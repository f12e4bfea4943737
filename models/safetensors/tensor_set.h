// The tensors of one model, however they are stored: one file, or shards with an index.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "models/safetensors/safetensors.h"

namespace sprocket::safetensors {

// Read-only; owns its files.
class TensorSet {
 public:
  // `path` is a *.safetensors file, a *.safetensors.index.json, or a folder that holds exactly one
  // index or, without an index, exactly one *.safetensors file.
  // All shards are opened and their headers checked. Throws InputError when the index is damaged,
  // names a file outside its folder or a tensor that its shard lacks, or a shard holds a tensor
  // that the index gives to another shard or does not list.
  static TensorSet open(const std::string& path);

  // Sorted.
  const std::vector<std::string>& names() const { return names_; }
  bool contains(std::string_view name) const;
  // Throws InputError naming the set's path and the tensor.
  const TensorInfo& at(std::string_view name) const;
  std::span<const std::byte> data(std::string_view name) const;
  std::vector<float> floats(std::string_view name) const;
  // The path that was opened (the file or index, where a folder was given).
  const std::string& path() const { return path_; }

 private:
  const File& file_of(std::string_view name) const;

  std::string path_;
  std::vector<File> files_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, size_t> file_by_name_;
};

}  // namespace sprocket::safetensors

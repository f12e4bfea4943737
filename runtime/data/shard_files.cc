#include "runtime/data/shard_files.h"

#include "base/error.h"
#include "runtime/data/file_hash.h"
#include "runtime/data/finite_floats.h"

namespace sprocket::data {

ShardInfo write_shard_file(const OutputFolder& folder, const std::string& name,
                           const std::vector<safetensors::TensorToWrite>& tensors) {
  const std::string path = folder.file(name);
  safetensors::write_file(path, tensors);
  const FileHash hash = hash_file(path);
  return {name, hash.bytes, hash.xxh3};
}

ShardFiles::ShardFiles(std::string folder, std::vector<ShardInfo> shards)
    : folder_(std::move(folder)), shards_(std::move(shards)) {}

const safetensors::File& ShardFiles::open(int64_t number) {
  const auto open = files_.find(number);
  if (open != files_.end()) return open->second;
  const auto bad = bad_shards_.find(number);
  if (bad != bad_shards_.end()) throw InputError(bad->second);
  try {
    const ShardInfo& info = shards_.at(number);
    const std::string path = folder_ + "/" + info.file;
    const FileHash found = hash_file(path);
    if (found.bytes != info.bytes) {
      throw InputError(fmt::format("{}: expected {} bytes, found {} (is it truncated?)", path,
                                   info.bytes, found.bytes));
    }
    if (found.xxh3 != info.xxh3) {
      throw InputError(fmt::format("{}: expected the hash {}, found {}: its bytes have changed",
                                   path, hash_text(info.xxh3), hash_text(found.xxh3)));
    }
    return files_.emplace(number, safetensors::File::open(path)).first->second;
  } catch (const InputError& error) {
    bad_shards_[number] = error.what();
    throw;
  }
}

std::vector<float> ShardFiles::read(int64_t shard, const std::string& name,
                                    const std::vector<int64_t>& shape) {
  const safetensors::File& file = open(shard);
  const safetensors::TensorInfo& tensor = file.at(name);
  if (tensor.shape != shape) {
    throw InputError(fmt::format("{}: tensor \"{}\": expected the shape [{}], found [{}]",
                                 file.path(), name, fmt::join(shape, ", "),
                                 fmt::join(tensor.shape, ", ")));
  }
  return finite_floats(file, tensor);
}

}  // namespace sprocket::data

// The shards of a data set or a prompt set: safetensors files whose sizes and hashes an index
// knows.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "models/safetensors/safetensors.h"
#include "models/safetensors/writer.h"
#include "runtime/data/index.h"
#include "runtime/data/output_folder.h"

namespace sprocket::data {

// Writes a shard into a folder that is not committed yet. Throws OutputError.
ShardInfo write_shard_file(const OutputFolder& folder, const std::string& name,
                           const std::vector<safetensors::TensorToWrite>& tensors);

// Shards are opened, and their size and hash verified, when first used. Not thread-safe.
class ShardFiles {
 public:
  ShardFiles(std::string folder, std::vector<ShardInfo> shards);

  // A tensor as float. Throws InputError naming the shard and the tensor: no such file, wrong size
  // or hash (again for every tensor of that shard), missing tensor, wrong shape or type, a value
  // that is not finite.
  std::vector<float> read(int64_t shard, const std::string& name,
                          const std::vector<int64_t>& shape);

 private:
  const safetensors::File& open(int64_t number);

  std::string folder_;
  std::vector<ShardInfo> shards_;
  std::map<int64_t, safetensors::File> files_;
  std::map<int64_t, std::string> bad_shards_;  // number -> what is wrong
};

}  // namespace sprocket::data

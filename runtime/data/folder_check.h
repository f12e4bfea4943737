// What data sets and prompt sets have in common for `sprocket data inspect` and `validate`.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "runtime/data/index.h"

namespace sprocket::data {

// Throws InputError when `folder` is none.
void require_folder(const std::string& folder, const std::string& what);

// Adds a sentence to `problems` for every shard listed twice and every file that is neither
// `index_name` nor a shard.
void check_files(const std::string& folder, const std::string& index_name,
                 const std::vector<ShardInfo>& shards, std::vector<std::string>* problems);

// Adds a sentence for every tensor of shard i that is not in tensors[i]; `owner` ("sample") says to
// whom it should belong. Unreadable shards are reported only when no tensor is expected in them,
// since reading those has reported them already.
void check_tensors(const std::string& folder, const std::vector<ShardInfo>& shards,
                   const std::vector<std::set<std::string>>& tensors, const std::string& owner,
                   std::vector<std::string>* problems);

// A line per shard, those of the numbers in `damaged` marked.
std::string shard_table(const std::vector<ShardInfo>& shards, const std::set<int64_t>& damaged);

}  // namespace sprocket::data

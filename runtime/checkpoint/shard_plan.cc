#include "runtime/checkpoint/shard_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>

namespace sprocket::runtime {
namespace {

// The rank in whose equal share of the elements a tensor's middle falls: never decreasing.
std::vector<int> owners_of(const std::vector<CheckpointTensor>& tensors, int ranks) {
  int64_t total = 0;
  for (const CheckpointTensor& tensor : tensors) total += std::ssize(tensor.values);
  std::vector<int> owners;
  int64_t before = 0;
  for (const CheckpointTensor& tensor : tensors) {
    const int64_t elements = std::ssize(tensor.values);
    const int64_t middle = std::min(before + elements / 2, std::max<int64_t>(total - 1, 0));
    owners.push_back(total == 0 ? 0 : static_cast<int>(middle * ranks / total));
    before += elements;
  }
  return owners;
}

std::string index_text(const CheckpointPart& part, const std::vector<ShardPlan>& shards) {
  nlohmann::json index;
  int64_t bytes = 0;
  for (const ShardPlan& shard : shards) {
    for (const size_t i : shard.tensors) {
      index["weight_map"][part.tensors[i].name] =
          std::filesystem::path(shard.file).filename().string();
      bytes += static_cast<int64_t>(part.tensors[i].values.size_bytes());
    }
  }
  index["metadata"]["total_size"] = bytes;
  return index.dump(1);
}

}  // namespace

PartPlan plan_part(const CheckpointPart& part, int ranks) {
  PartPlan plan;
  plan.folder = part.folder;
  const std::vector<int> owners = owners_of(part.tensors, ranks);
  for (size_t i = 0; i < owners.size(); ++i) {
    if (plan.shards.empty() || plan.shards.back().rank != owners[i]) {
      plan.shards.push_back({"", owners[i], {}});
    }
    plan.shards.back().tensors.push_back(i);
  }
  const size_t files = plan.shards.size();
  for (size_t i = 0; i < files; ++i) {
    plan.shards[i].file =
        files == 1 ? fmt::format("{0}/{0}.safetensors", part.folder)
                   : fmt::format("{0}/{0}-{1:05}-of-{2:05}.safetensors", part.folder, i + 1, files);
  }
  if (files > 1) {
    plan.index_file = fmt::format("{0}/{0}.safetensors.index.json", part.folder);
    plan.index = index_text(part, plan.shards);
  }
  return plan;
}

}  // namespace sprocket::runtime

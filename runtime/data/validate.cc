#include "runtime/data/validate.h"

#include <set>

#include "base/error.h"
#include "runtime/data/decode_latent.h"
#include "runtime/data/folder_check.h"
#include "runtime/data/latent_dataset.h"

namespace sprocket::data {
std::vector<std::string> validate_dataset(const std::string& folder) {
  require_folder(folder, "a data set or a prompt set");
  std::vector<std::string> problems;
  std::optional<LatentDataset> dataset;
  try {
    dataset.emplace(folder);
  } catch (const InputError& bad) {
    return {bad.what()};
  }
  const Index& index = dataset->index();
  check_files(folder, "index.json", index.shards, &problems);
  try {
    codec_of(index.codec);
  } catch (const InputError& bad) {
    problems.push_back(fmt::format("{}: {}", folder, bad.what()));
  }
  std::set<std::string> seen;  // a damaged shard is one problem, not one per sample
  std::vector<std::set<std::string>> tensors(index.shards.size());
  for (int64_t i = 0; i < dataset->size(); ++i) {
    const SampleInfo& sample = index.samples[i];
    tensors[sample.shard].insert(latent_name(sample));
    if (index.text.name == "precomputed") tensors[sample.shard].insert(text_name(sample));
    try {
      dataset->load(i);
    } catch (const InputError& bad) {
      if (seen.insert(bad.what()).second) problems.emplace_back(bad.what());
    }
  }
  check_tensors(folder, index.shards, tensors, "sample", &problems);
  return problems;
}

}  // namespace sprocket::data

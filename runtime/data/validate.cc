#include "runtime/data/validate.h"

#include <filesystem>
#include <set>

#include "base/error.h"
#include "models/safetensors/safetensors.h"
#include "runtime/data/decode_latent.h"
#include "runtime/data/latent_dataset.h"

namespace sprocket::data {
namespace {

namespace fs = std::filesystem;

void check_folder(const std::string& folder, const Index& index,
                  std::vector<std::string>* problems) {
  std::set<std::string> known = {"index.json"};
  for (const ShardInfo& shard : index.shards) {
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

}  // namespace

std::vector<std::string> validate_dataset(const std::string& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw InputError(fmt::format("{}: expected the folder of a data set, found {}", folder,
                                 fs::exists(folder, error) ? "a file" : "nothing"));
  }
  std::vector<std::string> problems;
  std::optional<LatentDataset> dataset;
  try {
    dataset.emplace(folder);
  } catch (const InputError& bad) {
    return {bad.what()};
  }
  const Index& index = dataset->index();
  check_folder(folder, index, &problems);
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
  for (size_t i = 0; i < index.shards.size(); ++i) {
    const std::string path = folder + "/" + index.shards[i].file;
    try {
      const auto file = safetensors::File::open(path);
      for (const auto& tensor : file.tensors()) {
        if (!tensors[i].contains(tensor.name)) {
          problems.push_back(
              fmt::format("{}: tensor \"{}\" belongs to no sample", path, tensor.name));
        }
      }
    } catch (const InputError& bad) {
      // Samples of this shard have reported a missing, truncated or changed file already.
      if (tensors[i].empty()) problems.emplace_back(bad.what());
    }
  }
  return problems;
}

}  // namespace sprocket::data

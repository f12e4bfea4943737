#include "runtime/data/latent_dataset.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "models/text/hashed_text.h"
#include "runtime/data/file_hash.h"

namespace sprocket::data {
namespace {

std::vector<float> read_tensor(const safetensors::File& file, const std::string& name,
                               const std::vector<int64_t>& shape) {
  const safetensors::TensorInfo& tensor = file.at(name);
  if (tensor.shape != shape) {
    throw InputError(fmt::format("{}: tensor \"{}\": expected the shape [{}], found [{}]",
                                 file.path(), name, fmt::join(shape, ", "),
                                 fmt::join(tensor.shape, ", ")));
  }
  std::vector<float> values = file.floats(tensor);
  const auto bad =
      std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  if (bad != values.end()) {
    throw InputError(fmt::format("{}: tensor \"{}\": element {} is {}, expected finite numbers",
                                 file.path(), name, bad - values.begin(), *bad));
  }
  return values;
}

}  // namespace

LatentDataset::LatentDataset(const std::string& folder)
    : folder_(folder), index_(read_index(folder)) {
  std::map<LatentShape, std::vector<int64_t>> by_shape;
  for (int64_t i = 0; i < size(); ++i) by_shape[index_.samples[i].shape].push_back(i);
  bucket_of_.resize(index_.samples.size());
  for (auto& [shape, samples] : by_shape) {
    for (const int64_t i : samples) bucket_of_[i] = static_cast<int64_t>(buckets_.size());
    buckets_.push_back({shape, std::move(samples)});
  }
}

const LatentShape& LatentDataset::largest_shape() const {
  return std::max_element(buckets_.begin(), buckets_.end(),
                          [](const Bucket& a, const Bucket& b) {
                            return a.shape.elements() < b.shape.elements();
                          })
      ->shape;
}

std::vector<std::vector<int64_t>> LatentDataset::bucket_samples() const {
  std::vector<std::vector<int64_t>> result;
  for (const Bucket& bucket : buckets_) result.push_back(bucket.samples);
  return result;
}

const safetensors::File& LatentDataset::shard(int64_t number) {
  const auto open = files_.find(number);
  if (open != files_.end()) return open->second;
  const auto bad = bad_shards_.find(number);
  if (bad != bad_shards_.end()) throw InputError(bad->second);
  try {
    const ShardInfo& info = index_.shards.at(number);
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

Sample LatentDataset::load(int64_t index) {
  SPROCKET_CHECK(index >= 0 && index < size(), "sample {} of {}", index, size());
  const SampleInfo& info = index_.samples[index];
  const safetensors::File& file = shard(info.shard);
  const LatentShape& shape = info.shape;
  Sample sample;
  sample.index = index;
  sample.latent = read_tensor(file, latent_name(info), {shape.c, shape.t, shape.h, shape.w});
  if (!index_.normalised) codec::normalise(sample.latent, index_.statistics);
  sample.text = index_.text.name == "precomputed"
                    ? read_tensor(file, text_name(info), {index_.text.tokens, index_.text.dim})
                    : embed_text(index_.text, info.caption);
  return sample;
}

Sample LatentDataset::load_or_substitute(int64_t index) {
  SPROCKET_CHECK(index >= 0 && index < size(), "sample {} of {}", index, size());
  const std::vector<int64_t>& bucket = buckets_[bucket_of_[index]].samples;
  const size_t start = std::lower_bound(bucket.begin(), bucket.end(), index) - bucket.begin();
  const size_t tries = std::min<size_t>(bucket.size(), kMaxBadInARow);
  std::string reason;
  for (size_t i = 0; i < tries; ++i) {
    const int64_t candidate = bucket[(start + i) % bucket.size()];
    try {
      return load(candidate);
    } catch (const InputError& error) {
      reason = error.what();
      if (bad_.insert(candidate).second) {
        spdlog::warn("sample {} ({}) is skipped: {}", index_.samples[candidate].id,
                     index_.samples[candidate].source, reason);
      }
    }
  }
  throw InputError(fmt::format(
      "{}: {} samples in a row are bad{}; `sprocket data validate` lists what is wrong; the last: "
      "{}",
      folder_, tries, tries == bucket.size() ? " (all of their latent shape)" : "", reason));
}

std::vector<float> embed_text(const TextInfo& text, const std::string& caption) {
  if (text.name != "hashed" || text.version != text::kHashedTextVersion) {
    throw InputError(fmt::format(
        "text \"{}\" can be embedded here by \"hashed\" version {} only; the data set uses \"{}\" "
        "version {}",
        caption.substr(0, 60), text::kHashedTextVersion, text.name, text.version));
  }
  return text::embed_hashed(caption, text.tokens, text.dim);
}

}  // namespace sprocket::data

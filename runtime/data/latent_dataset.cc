#include "runtime/data/latent_dataset.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "base/error.h"
#include "models/text/hashed_text.h"
#include "runtime/data/prompt_index.h"

namespace sprocket::data {
namespace {

Index index_of(const std::string& folder) {
  if (!is_prompt_set(folder)) return read_index(folder);
  throw InputError(fmt::format(
      "{}: expected a data set of videos (`sprocket data encode`), found a prompt set", folder));
}

}  // namespace

LatentDataset::LatentDataset(const std::string& folder)
    : folder_(folder), index_(index_of(folder)), shards_(folder, index_.shards) {
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

Sample LatentDataset::load(int64_t index) {
  SPROCKET_CHECK(index >= 0 && index < size(), "sample {} of {}", index, size());
  const SampleInfo& info = index_.samples[index];
  const LatentShape& shape = info.shape;
  Sample sample;
  sample.index = index;
  sample.latent = shards_.read(info.shard, latent_name(info), {shape.c, shape.t, shape.h, shape.w});
  if (!index_.normalised) codec::normalise(sample.latent, index_.statistics);
  sample.text =
      index_.text.name == "precomputed"
          ? shards_.read(info.shard, text_name(info), {index_.text.tokens, index_.text.dim})
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

// Reading a data set of encoded videos.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/data/index.h"
#include "runtime/data/shard_files.h"

namespace sprocket::data {

struct Bucket {
  LatentShape shape;
  std::vector<int64_t> samples;  // ascending
};

struct Sample {
  int64_t index = 0;          // in Index::samples; another than asked for after a substitution
  std::vector<float> latent;  // [C,T,H,W], normalised per channel
  std::vector<float> text;    // [tokens, dim]
};

// Shards are opened, and their size and hash verified, when first used. Not thread-safe.
class LatentDataset {
 public:
  // So many bad samples in a row stop a run.
  static constexpr int kMaxBadInARow = 100;

  // Reads the index alone. Throws InputError.
  explicit LatentDataset(const std::string& folder);

  // Normalises by the statistics of another data set, the one that a model is trained on, where
  // latents are not stored normalised already.
  void normalise_by(const LatentDataset& other) { index_.statistics = other.index_.statistics; }

  const std::string& folder() const { return folder_; }
  const Index& index() const { return index_; }
  int64_t size() const { return static_cast<int64_t>(index_.samples.size()); }
  // By latent shape, in the order of the shapes.
  const std::vector<Bucket>& buckets() const { return buckets_; }
  // Of the videos with most latent cells.
  const LatentShape& largest_shape() const;
  // For SampleOrder.
  std::vector<std::vector<int64_t>> bucket_samples() const;

  // Throws InputError naming the shard and the sample: wrong size or hash, missing tensor, wrong
  // shape or type, a value that is not finite.
  Sample load(int64_t index);

  // As load, but a bad sample is logged once, counted, and replaced by the next good one of its
  // bucket (cyclically by number): every rank that reads the same files substitutes the same.
  // Throws InputError, with the last reason, when kMaxBadInARow were bad or the bucket has no
  // other.
  Sample load_or_substitute(int64_t index);
  // Samples found bad so far.
  int64_t bad_samples() const { return static_cast<int64_t>(bad_.size()); }

 private:
  std::string folder_;
  Index index_;
  std::vector<Bucket> buckets_;
  std::vector<int64_t> bucket_of_;  // by sample
  ShardFiles shards_;
  std::set<int64_t> bad_;
};

// The embedding of any text by the data set's embedder. Throws InputError for precomputed text,
// where only stored embeddings exist, and for an unknown version.
std::vector<float> embed_text(const TextInfo& text, const std::string& caption);

}  // namespace sprocket::data

#include "runtime/data/inspect.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "base/error.h"
#include "runtime/data/folder_check.h"
#include "runtime/data/latent_dataset.h"

namespace sprocket::data {
namespace {

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  double sum = 0;
  double squares = 0;
  int64_t count = 0;
};

}  // namespace

std::string inspect_dataset(const std::string& folder, int64_t max_samples) {
  LatentDataset dataset(folder);
  const Index& index = dataset.index();
  std::vector<Range> ranges(index.codec.channels);
  std::set<int64_t> damaged;
  std::string problems;
  for (int64_t i = 0; i < dataset.size(); ++i) {
    const SampleInfo& info = index.samples[i];
    if (damaged.contains(info.shard)) continue;
    Sample sample;
    try {
      sample = dataset.load(i);
    } catch (const InputError& error) {
      damaged.insert(info.shard);
      problems += fmt::format("  {}\n", error.what());
      continue;
    }
    const int64_t per_channel = info.shape.elements() / info.shape.c;
    for (size_t k = 0; k < sample.latent.size(); ++k) {
      Range& range = ranges[static_cast<int64_t>(k) / per_channel];
      const double value = sample.latent[k];
      range.low = std::min(range.low, value);
      range.high = std::max(range.high, value);
      range.sum += value;
      range.squares += value * value;
      ++range.count;
    }
  }

  std::string text = fmt::format("data set {}: {} samples in {} shards, schema version {}\n",
                                 folder, dataset.size(), index.shards.size(), index.schema_version);
  text += fmt::format("codec {} version {}, {} channels; latents stored {}; schedule shift {}\n",
                      index.codec.name, index.codec.version, index.codec.channels,
                      index.normalised ? "normalised" : "as encoded",
                      index.shift ? fmt::format("{}", *index.shift) : "none");
  text += fmt::format("text {} version {}: {} tokens of {}\n", index.text.name, index.text.version,
                      index.text.tokens, index.text.dim);
  text += "buckets (latent [C, T, H, W]):\n";
  for (const Bucket& bucket : dataset.buckets()) {
    const SampleInfo& first = index.samples[bucket.samples.front()];
    text += fmt::format("  {}  {} samples of {} frames, {}x{} pixels\n", to_string(bucket.shape),
                        bucket.samples.size(), first.frames, first.width, first.height);
  }
  text += "channel        mean         std   | normalised:   mean     std      min      max\n";
  for (size_t c = 0; c < ranges.size(); ++c) {
    const Range& range = ranges[c];
    const double count = static_cast<double>(std::max<int64_t>(range.count, 1));
    const double mean = range.sum / count;
    text += fmt::format(
        "  {:>5} {:>11.5f} {:>11.5f}   |             {:>7.3f} {:>7.3f} {:>8.2f} "
        "{:>8.2f}\n",
        c, index.statistics.mean[c], index.statistics.std[c], mean,
        std::sqrt(std::max(0.0, range.squares / count - mean * mean)), range.low, range.high);
  }
  text += shard_table(index.shards, damaged);
  text += "samples:\n";
  for (int64_t i = 0; i < std::min(max_samples, dataset.size()); ++i) {
    const SampleInfo& sample = index.samples[i];
    text +=
        fmt::format("  {}  {} from frame {}, {} frames at {:g} fps  \"{}\"\n", sample.id,
                    sample.source, sample.first_frame, sample.frames, sample.fps, sample.caption);
  }
  if (dataset.size() > max_samples) {
    text += fmt::format("  and {} more\n", dataset.size() - max_samples);
  }
  if (!problems.empty()) text += "problems:\n" + problems;
  return text;
}

}  // namespace sprocket::data

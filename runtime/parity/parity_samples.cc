#include "runtime/parity/parity_samples.h"

#include <cmath>
#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "base/philox.h"
#include "runtime/data/sample_order.h"
#include "runtime/train/data_check.h"

namespace sprocket::runtime {
namespace {

// Streams of RandomPurpose::kParityCheck.
constexpr uint64_t kLatents = 0, kTexts = 1, kLastBits = 3;

class Drawn {
 public:
  explicit Drawn(const config::Job& job)
      : job_(job),
        shape_{job.model().latent_channels(), job.data().latent().t(), job.data().latent().h(),
               job.data().latent().w()} {}

  data::Sample sample(int64_t index) const {
    data::Sample sample;
    sample.index = index;
    sample.latent = normal(kLatents, index, shape_.elements());
    sample.text =
        normal(kTexts, index, int64_t{job_.model().text_tokens()} * job_.model().text_dim());
    return sample;
  }
  data::LatentShape shape(const data::Sample&) const { return shape_; }
  std::string source(const std::vector<int64_t>&) const {
    return fmt::format("latents drawn at random, {} (data.latent)", data::to_string(shape_));
  }

 private:
  std::vector<float> normal(uint64_t stream, int64_t index, int64_t elements) const {
    std::vector<float> values(elements);
    RandomStream(job_.training().seed(), stream, static_cast<uint64_t>(index),
                 RandomPurpose::kParityCheck)
        .normal(values);
    return values;
  }
  const config::Job& job_;
  data::LatentShape shape_;
};

class Stored {
 public:
  explicit Stored(const config::Job& job)
      : data_(job.data().path()),
        order_(data_.bucket_samples(), job.training().global_batch(), job.data().seed()) {
    check_data(job, data_);
  }

  data::Sample sample(int64_t index) { return data_.load_or_substitute(order_.at(index)); }
  data::LatentShape shape(const data::Sample& sample) const {
    return data_.index().samples[sample.index].shape;
  }
  std::string source(const std::vector<int64_t>& samples) const {
    return fmt::format("{}, sample{} {} of {}", data_.folder(), samples.size() == 1 ? "" : "s",
                       fmt::join(samples, ", "),
                       data::to_string(data_.index().samples[samples.front()].shape));
  }

 private:
  data::LatentDataset data_;
  data::SampleOrder order_;
};

template <class Source>
ParitySamples first_of_all_replicas(const config::Job& job, Source from) {
  ParitySamples result;
  std::vector<int64_t> taken;
  const int64_t size = job.training().micro_batch();
  for (int64_t replica = 0; replica < job.parallel().data(); ++replica) {
    std::vector<SampleKey> keys;
    std::vector<data::Sample> samples;
    for (int64_t lane = 0; lane < size; ++lane) {
      keys.push_back({job.training().seed(), 0, replica * size + lane});
      samples.push_back(from.sample(keys.back().index));
      taken.push_back(samples.back().index);
    }
    result.replicas.push_back(make_micro_batch(job, from.shape(samples.front()), samples, keys));
  }
  result.source = from.source(taken);
  return result;
}

}  // namespace

int64_t ParitySamples::samples() const {
  int64_t sum = 0;
  for (const MicroBatch& batch : replicas) sum += batch.noisy_BCTHW.size(0);
  return sum;
}

ParitySamples load_parity_samples(const config::Job& job) {
  if (std::filesystem::exists(std::filesystem::path(job.data().path()) / "index.json")) {
    return first_of_all_replicas(job, Stored(job));
  }
  SPROCKET_CHECK(job.data().has_latent(), "neither a data set nor data.latent");
  return first_of_all_replicas(job, Drawn(job));
}

ParitySamples with_last_bits_changed(ParitySamples samples, uint64_t variant) {
  const RandomStream up(variant, kLastBits, 0, RandomPurpose::kParityCheck);
  uint64_t next = 0;
  for (MicroBatch& batch : samples.replicas) {
    batch.noisy_BCTHW = batch.noisy_BCTHW.clone();
    float* const values = batch.noisy_BCTHW.data_ptr<float>();
    for (int64_t i = 0; i < batch.noisy_BCTHW.numel(); ++i) {
      const float towards = up.bits(next++) & 1 ? 1e30f : -1e30f;
      values[i] = std::nextafter(values[i], towards);
    }
  }
  return samples;
}

}  // namespace sprocket::runtime

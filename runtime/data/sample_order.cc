#include "runtime/data/sample_order.h"

#include <utility>

#include "base/error.h"
#include "base/philox.h"

namespace sprocket::data {
namespace {

// Fisher-Yates with the stream's numbers; the same items give the same order everywhere.
template <class T>
void shuffle(std::vector<T>* items, const RandomStream& random) {
  for (size_t i = items->size(); i > 1; --i)
    std::swap((*items)[i - 1], (*items)[random.below(i, i)]);
}

}  // namespace

SampleOrder::SampleOrder(std::vector<std::vector<int64_t>> buckets, int64_t batch, uint64_t seed)
    : buckets_(std::move(buckets)), batch_(batch), seed_(seed) {
  SPROCKET_CHECK(!buckets_.empty() && batch_ >= 1, "{} buckets, batch {}", buckets_.size(), batch_);
  for (const auto& bucket : buckets_) {
    SPROCKET_CHECK(!bucket.empty(), "an empty bucket");
    epoch_size_ += (static_cast<int64_t>(bucket.size()) + batch_ - 1) / batch_ * batch_;
  }
}

void SampleOrder::build(int64_t epoch) {
  std::vector<std::vector<int64_t>> batches;
  for (size_t b = 0; b < buckets_.size(); ++b) {
    std::vector<int64_t> samples = buckets_[b];
    shuffle(&samples, RandomStream(seed_, epoch, b + 1, RandomPurpose::kSampleOrder));
    for (size_t begin = 0; begin < samples.size(); begin += batch_) {
      auto& batch = batches.emplace_back();
      for (int64_t i = 0; i < batch_; ++i) batch.push_back(samples[(begin + i) % samples.size()]);
    }
  }
  shuffle(&batches, RandomStream(seed_, epoch, 0, RandomPurpose::kSampleOrder));
  order_.clear();
  for (const auto& batch : batches) order_.insert(order_.end(), batch.begin(), batch.end());
  epoch_ = epoch;
}

int64_t SampleOrder::at(int64_t global_index) {
  SPROCKET_CHECK_GE(global_index, 0);
  const int64_t epoch = global_index / epoch_size_;
  if (epoch != epoch_) build(epoch);
  return order_[global_index % epoch_size_];
}

}  // namespace sprocket::data

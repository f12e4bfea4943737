// Which sample is used when.
#pragma once

#include <cstdint>
#include <vector>

namespace sprocket::data {

// An order is a function of (seed, epoch, global index) alone: the number of ranks, and where a run
// was interrupted, do not enter.
//
// An epoch is a sequence of batches, each from one bucket (samples of one latent shape). Every
// bucket's samples are shuffled and cut into batches; when the last one is incomplete it is filled
// from the bucket's start. Then the batches of all buckets are shuffled. So in an epoch every
// sample is used once, apart from fillers.
class SampleOrder {
 public:
  // buckets: the sample numbers of each bucket, none empty. batch: samples of one optimizer step
  // over all ranks (the job's global batch), >= 1.
  SampleOrder(std::vector<std::vector<int64_t>> buckets, int64_t batch, uint64_t seed);

  // Entry i of step s is global index s * batch + i. Not thread-safe: keeps the epoch it last used.
  int64_t at(int64_t global_index);

  int64_t epoch_size() const { return epoch_size_; }

 private:
  void build(int64_t epoch);

  std::vector<std::vector<int64_t>> buckets_;
  int64_t batch_;
  uint64_t seed_;
  int64_t epoch_size_ = 0;
  int64_t epoch_ = -1;
  std::vector<int64_t> order_;  // of epoch_
};

}  // namespace sprocket::data

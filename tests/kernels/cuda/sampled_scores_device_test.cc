#include "kernels/cuda/sampled_scores.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/sampled_scores.h"
#include "tests/kernels/cuda/device_array.h"

namespace sprocket::kernels::cuda {
namespace {

struct Shape {
  int batch, heads, query_blocks, kv_blocks, samples, head_dim, first_query_block = 0,
                                                                prefix_blocks = 0;
  int video() const { return kv_blocks - prefix_blocks; }
  int64_t rows() const { return int64_t{batch} * heads * query_blocks; }
};
const Shape kShapes[] = {{2, 2, 5, 13, 6, 20, 2, 3}, {1, 1, 3, 40, 19, 16}, {1, 2, 2, 3, 1, 5}};

template <class A>
class Rows : public ScoreRowSink<A> {
 public:
  explicit Rows(const Shape& shape) : shape_(shape), scores(shape.rows() * shape.video()) {}
  void take(int, int64_t batch_head, int query_block, std::span<const A> row) override {
    std::copy(row.begin(), row.end(),
              scores.begin() + (batch_head * shape_.query_blocks + query_block) * shape_.video());
  }

 private:
  const Shape& shape_;

 public:
  std::vector<A> scores;
};

// The blocks' slots in use: some have fewer, one has none.
std::vector<int32_t> counts_of(int blocks, int samples) {
  std::vector<int32_t> counts(blocks, samples);
  for (int i = 0; i < blocks; ++i) {
    if (i % 4 == 2) counts[i] = (samples + 1) / 2;
    if (i % 7 == 5) counts[i] = 0;
  }
  return counts;
}

struct Samples {
  Samples(const Shape& shape, float factor)
      : q(shape.rows() * shape.samples * shape.head_dim),
        k(int64_t{shape.batch} * shape.heads * shape.kv_blocks * shape.samples * shape.head_dim),
        q_counts(counts_of(shape.query_blocks, shape.samples)),
        k_counts(counts_of(shape.kv_blocks, shape.samples)) {
    RandomStream(21, 0, 1, RandomPurpose::kTest).normal(q);
    RandomStream(21, 0, 2, RandomPurpose::kTest).normal(k);
    for (float& value : q) value *= factor;
  }
  std::vector<float> q, k;
  std::vector<int32_t> q_counts, k_counts;
};

template <class A>
std::vector<A> host_scores(const Shape& shape, const Samples& samples, SampledScore score) {
  const std::vector<A> q(samples.q.begin(), samples.q.end());
  const std::vector<A> k(samples.k.begin(), samples.k.end());
  SampledScoreProblem<A> problem;
  problem.batch = shape.batch;
  problem.heads = shape.heads;
  problem.query_blocks = shape.query_blocks;
  problem.kv_blocks = shape.kv_blocks;
  problem.samples = shape.samples;
  problem.head_dim = shape.head_dim;
  problem.scale = 1 / std::sqrt(static_cast<double>(shape.head_dim));
  problem.score = score;
  problem.q = q.data();
  problem.k = k.data();
  problem.q_counts = samples.q_counts;
  problem.k_counts = samples.k_counts;
  problem.first_query_block = shape.first_query_block;
  problem.prefix_blocks = shape.prefix_blocks;
  Rows<A> sink(shape);
  kernels::sampled_scores(problem, sink);
  return sink.scores;
}

// Rows of prefix query blocks are 0 here: nothing writes them on either side.
std::vector<float> device_scores(const Shape& shape, const Samples& samples, SampledScore score) {
  const CudaStream stream;
  DeviceArray<float> q(samples.q), k(samples.k);
  DeviceArray<int32_t> q_counts(samples.q_counts), k_counts(samples.k_counts);
  DeviceArray<float> scores(std::vector<float>(shape.rows() * shape.video(), 0.0f));
  sampled_scores(
      {shape.batch, shape.heads, shape.query_blocks, shape.kv_blocks, shape.samples, shape.head_dim,
       1 / std::sqrt(static_cast<double>(shape.head_dim)), score, q.get(), k.get(), q_counts.get(),
       k_counts.get(), shape.first_query_block, shape.prefix_blocks},
      scores.get(), stream.view());
  return scores.download();
}

double largest_error(const std::vector<float>& found, const std::vector<double>& exact) {
  double error = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double distance = std::abs(found[i] - exact[i]);
    if (!(distance <= error)) error = distance;
  }
  return error;
}

TEST(SampledScoresDeviceTest, AsExactAsTheHosts) {
  for (const Shape& shape : kShapes) {
    for (const SampledScore score : {SampledScore::kSoftmax, SampledScore::kExpMinusMax}) {
      for (const float factor : {1.0f, 8.0f}) {
        const Samples samples(shape, factor);
        const auto exact = host_scores<double>(shape, samples, score);
        const auto found = device_scores(shape, samples, score);
        const double host_error = largest_error(host_scores<float>(shape, samples, score), exact);
        EXPECT_LE(largest_error(found, exact), 2 * host_error) << shape.kv_blocks << " " << factor;
        EXPECT_EQ(found, device_scores(shape, samples, score));
      }
    }
  }
}

TEST(SampledScoresDeviceTest, WhatIsNoNumberCountsAsNothing) {
  const Shape& shape = kShapes[0];
  Samples samples(shape, 1);
  samples.k[3 * shape.samples * shape.head_dim + 4] = std::numeric_limits<float>::quiet_NaN();
  samples.q[shape.samples * shape.head_dim] = std::numeric_limits<float>::infinity();
  for (const SampledScore score : {SampledScore::kSoftmax, SampledScore::kExpMinusMax}) {
    const auto exact = host_scores<double>(shape, samples, score);
    const auto host = host_scores<float>(shape, samples, score);
    const auto found = device_scores(shape, samples, score);
    EXPECT_LE(largest_error(found, exact), 2 * largest_error(host, exact));
    for (size_t i = 0; i < host.size(); ++i) EXPECT_EQ(found[i] == 0, host[i] == 0) << i;
  }
}

// A call that holds one query block gives the bits of the call that holds them all.
TEST(SampledScoresDeviceTest, ARowDoesNotDependOnTheCall) {
  const Shape all{1, 1, 4, 40, 19, 16};
  const Samples samples(all, 3);
  const auto expected = device_scores(all, samples, SampledScore::kSoftmax);
  const Shape one{1, 1, 1, 40, 19, 16};
  Samples part = samples;
  const int64_t size = all.samples * all.head_dim;
  part.q.assign(samples.q.begin() + 2 * size, samples.q.begin() + 3 * size);
  part.q_counts = {samples.q_counts[2]};
  EXPECT_EQ(
      device_scores(one, part, SampledScore::kSoftmax),
      std::vector<float>(expected.begin() + 2 * all.video(), expected.begin() + 3 * all.video()));
}

TEST(SampledScoresDeviceTest, RefusesWhatIsNoProblem) {
  const CudaStream stream;
  EXPECT_THROW(sampled_scores({1, 1, 1, 1, 0, 4}, nullptr, stream.view()), InternalError);
}

}  // namespace
}  // namespace sprocket::kernels::cuda

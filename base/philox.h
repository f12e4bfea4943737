// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC'11).
//
// There is no generator state to store: a number is a function of (seed, step, sample, purpose,
// index), so that any rank can compute any element and the result does not depend on the number of
// ranks.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace sprocket {

// What a stream of random numbers is for. Values are part of the checkpoint format: append only.
enum class RandomPurpose : uint32_t {
  kInitialisation = 0,
  kSampleOrder = 1,
  kNoise = 2,
  kTimestep = 3,
  kTextDropout = 4,
  kSampling = 5,
  kTest = 6,
  kBlockSample = 7,
  kPlan = 8,
  kParityCheck = 9,
  kDistillation = 10,
  kSamplingStep = 12,
};

// One block of the cipher: four 32-bit words from a 128-bit counter and a 64-bit key.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// A stream keyed by (seed, step, sample, purpose); its elements are addressed by index.
// `step` uses its low 24 bits and `purpose` 8 bits of one word; `sample` 32 bits; index < 2^34.
class RandomStream {
 public:
  RandomStream(uint64_t seed, uint64_t step, uint64_t sample, RandomPurpose purpose);

  // Uniform integer in [0, 2^32).
  uint32_t bits(uint64_t index) const;
  // Uniform in (0, 1), 23 bits: a 24th would round the largest one to 1.
  float uniform(uint64_t index) const;
  // Uniform integer in [0, bound), unbiased to 2^-64 * bound. bound > 0. Element i uses the same
  // words as elements 4i and 4i + 1 of bits(): use one or the other of a stream.
  uint64_t below(uint64_t index, uint64_t bound) const;
  // Standard normal by Box-Muller; element i of the stream whatever the span's position.
  void normal(std::span<float> out, uint64_t first_index = 0) const;

 private:
  std::array<uint32_t, 4> block(uint64_t block_index) const;
  std::array<uint32_t, 2> key_;
  uint32_t high_[2];
};

}  // namespace sprocket

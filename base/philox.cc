#include "base/philox.h"

#include <cmath>
#include <numbers>

namespace sprocket {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = kMultiplier0 * counter[0];
    const uint64_t p1 = kMultiplier1 * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

RandomStream::RandomStream(uint64_t seed, uint64_t step, uint64_t sample, RandomPurpose purpose)
    : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
      high_{static_cast<uint32_t>((step & 0xffffffu) << 8) | static_cast<uint32_t>(purpose),
            static_cast<uint32_t>(sample)} {}

std::array<uint32_t, 4> RandomStream::block(uint64_t block_index) const {
  return philox4x32({static_cast<uint32_t>(block_index), static_cast<uint32_t>(block_index >> 32),
                     high_[0], high_[1]},
                    key_);
}

uint32_t RandomStream::bits(uint64_t index) const { return block(index / 4)[index % 4]; }

float RandomStream::uniform(uint64_t index) const {
  return (static_cast<float>(bits(index) >> 9) + 0.5f) * 0x1p-23f;
}

uint64_t RandomStream::below(uint64_t index, uint64_t bound) const {
  const auto words = block(index);
  const uint64_t value = (static_cast<uint64_t>(words[0]) << 32) | words[1];
  return static_cast<uint64_t>((static_cast<unsigned __int128>(value) * bound) >> 64);
}

void RandomStream::normal(std::span<float> out, uint64_t first_index) const {
  size_t i = 0;
  while (i < out.size()) {
    const uint64_t index = first_index + i;
    const auto words = block(index / 4);
    float values[4];
    for (int pair = 0; pair < 2; ++pair) {
      const double u = (static_cast<double>(words[2 * pair]) + 0.5) * 0x1p-32;
      const double angle =
          2 * std::numbers::pi * (static_cast<double>(words[2 * pair + 1]) * 0x1p-32);
      const double radius = std::sqrt(-2 * std::log(u));
      values[2 * pair] = static_cast<float>(radius * std::cos(angle));
      values[2 * pair + 1] = static_cast<float>(radius * std::sin(angle));
    }
    for (uint64_t lane = index % 4; lane < 4 && i < out.size(); ++lane) out[i++] = values[lane];
  }
}

}  // namespace sprocket

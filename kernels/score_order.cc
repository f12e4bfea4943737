#include "kernels/score_order.h"

#include <array>
#include <bit>
#include <cmath>
#include <utility>

namespace sprocket::kernels {
namespace {

constexpr int kDigitBits = 8;
constexpr int kBuckets = 1 << kDigitBits;

}  // namespace

// A radix sort from the lowest digit up: stable, so that ties keep the ascending order of ids.
template <class A>
std::span<const int32_t> ScoreOrder<A>::sort(std::span<const A> scores) {
  constexpr Bits kSign = Bits{1} << (8 * sizeof(A) - 1);
  constexpr int kDigits = 8 * sizeof(A) / kDigitBits;
  const size_t count = scores.size();
  entries_.resize(count);
  sorted_.resize(count);
  ids_.resize(count);
  std::array<std::array<uint32_t, kBuckets>, kDigits> next{};
  for (size_t i = 0; i < count; ++i) {
    Bits key = ~Bits{0};
    if (scores[i] == scores[i]) {
      const Bits bits = std::bit_cast<Bits>(scores[i] + A{0});
      key = (bits & kSign) ? bits : ~(bits | kSign);
    }
    entries_[i] = {key, static_cast<int32_t>(i)};
    for (int digit = 0; digit < kDigits; ++digit) {
      ++next[digit][(key >> (digit * kDigitBits)) % kBuckets];
    }
  }
  for (int digit = 0; digit < kDigits && count > 0; ++digit) {
    const auto bucket = [digit](Bits key) { return (key >> (digit * kDigitBits)) % kBuckets; };
    if (next[digit][bucket(entries_[0].key)] == count) continue;
    uint32_t first = 0;
    for (uint32_t& position : next[digit]) first += std::exchange(position, first);
    for (const Entry& entry : entries_) sorted_[next[digit][bucket(entry.key)]++] = entry;
    std::swap(entries_, sorted_);
  }
  for (size_t i = 0; i < count; ++i) ids_[i] = entries_[i].id;
  return ids_;
}

ScaledShare share_of(const Decimal& share) {
  constexpr int64_t kDecimals = 1'000'000'000'000'000'000;  // a Decimal has no more places
  int exponent = 0;
  const long double fraction =
      std::frexp(static_cast<long double>(share.floor_times(kDecimals)) / kDecimals, &exponent);
  return {static_cast<uint64_t>(std::ldexp(fraction, 64)), exponent - 64};
}

template class ScoreOrder<float>;
template class ScoreOrder<double>;

}  // namespace sprocket::kernels

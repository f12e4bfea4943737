#include "kernels/block_selection.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "kernels/lanes.h"

namespace sprocket::kernels {
namespace {

template <class A>
using KeyLanes = IntegerLanes<A>;
template <class A>
using Key = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
template <class A>
using UnsignedKey = std::make_unsigned_t<Key<A>>;
template <class A>
constexpr Key<A> kLowest = std::numeric_limits<Key<A>>::min();

template <class A>
SPROCKET_INLINE KeyLanes<A> load_keys(const Key<A>* from) {
  KeyLanes<A> keys;
  std::memcpy(&keys, from, sizeof keys);
  return keys;
}

// Integers in the order of the values: the exponent and mantissa of a negative number count
// backwards. +0 for -0; a NaN is the lowest.
template <class A>
SPROCKET_INLINE KeyLanes<A> keys_of(Lanes<A> values) {
  constexpr int kSignShift = 8 * sizeof(A) - 1;
  const KeyLanes<A> bits = (KeyLanes<A>)(values + Lanes<A>{});
  const KeyLanes<A> keys = bits ^ ((bits >> kSignShift) & std::numeric_limits<Key<A>>::max());
  return values == values ? keys : KeyLanes<A>{} + kLowest<A>;
}

template <class A>
SPROCKET_INLINE int64_t count_from(const Key<A>* keys, int64_t padded, Key<A> threshold) {
  const KeyLanes<A> thresholds = KeyLanes<A>{} + threshold;
  KeyLanes<A> counts{};
  for (int64_t j = 0; j < padded; j += kLanes<A>) {
    counts -= (KeyLanes<A>)(load_keys<A>(keys + j) >= thresholds);
  }
  int64_t count = 0;
  for (int i = 0; i < kLanes<A>; ++i) count += counts[i];
  return count;
}

// 0 < count < size; keys has room for whole vectors.
template <class A>
struct SelectKernel {
  SPROCKET_INLINE static void run(const A* scores, int64_t size, int64_t count, Key<A>* keys,
                                  int32_t* positions) {
    const int64_t whole = size - size % kLanes<A>;
    const int64_t padded = (size + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
    KeyLanes<A> low_lanes = KeyLanes<A>{} + std::numeric_limits<Key<A>>::max();
    KeyLanes<A> high_lanes = KeyLanes<A>{} + kLowest<A>;
    for (int64_t j = 0; j < whole; j += kLanes<A>) {
      const KeyLanes<A> key = keys_of<A>(load(scores + j));
      std::memcpy(keys + j, &key, sizeof key);
      low_lanes = key < low_lanes ? key : low_lanes;
      high_lanes = key > high_lanes ? key : high_lanes;
    }
    if (whole < size) {
      const KeyLanes<A> key = keys_of<A>(load_first(scores + whole, size - whole));
      std::memcpy(keys + whole, &key, sizeof key);
      std::fill(keys + size, keys + padded, kLowest<A>);
    }
    Key<A> low = std::numeric_limits<Key<A>>::max(), high = kLowest<A>;
    for (int i = 0; i < kLanes<A>; ++i) {
      low = std::min<Key<A>>(low, low_lanes[i]);
      high = std::max<Key<A>>(high, high_lanes[i]);
    }
    for (int64_t j = whole; j < size; ++j) {
      low = std::min(low, keys[j]);
      high = std::max(high, keys[j]);
    }

    // The largest threshold that at least `count` keys reach, by bisection between low, which
    // enough reach, and high, which too few do. Padding lies below every middle.
    Key<A> threshold = high;
    if (count_from<A>(keys, padded, high) < count) {
      while (static_cast<UnsignedKey<A>>(high) - static_cast<UnsignedKey<A>>(low) > 1) {
        const UnsignedKey<A> gap =
            static_cast<UnsignedKey<A>>(high) - static_cast<UnsignedKey<A>>(low);
        const Key<A> middle = static_cast<Key<A>>(static_cast<UnsignedKey<A>>(low) + gap / 2);
        const int64_t reached = count_from<A>(keys, padded, middle);
        (reached >= count ? low : high) = middle;
        if (reached == count) break;
      }
      threshold = low;
    }
    if (count_from<A>(keys, padded, threshold) == count) {
      for (int64_t j = 0, written = 0; written < count; ++j) {
        positions[written] = static_cast<int32_t>(j);
        written += keys[j] >= threshold;
      }
      return;
    }
    int64_t ties = count - count_from<A>(keys, padded, threshold + 1);
    for (int64_t j = 0, written = 0; written < count; ++j) {
      const bool tie = (keys[j] == threshold) & (ties > 0);
      positions[written] = static_cast<int32_t>(j);
      written += static_cast<int64_t>(keys[j] > threshold) + tie;
      ties -= tie;
    }
  }
};

}  // namespace

int selected_count(const Decimal& sparsity, int blocks) {
  if (blocks <= 0) return 0;
  const int64_t count = (Decimal::ratio(1, 0) - sparsity).ceil_times(blocks);
  return static_cast<int>(std::clamp<int64_t>(count, 1, blocks));
}

template <class A>
void RowSelector<A>::select(const A* scores, int64_t size, int64_t count, int32_t* positions) {
  if (count == 0) return;
  if (count == size) {
    std::iota(positions, positions + size, 0);
    return;
  }
  run_on_isa<SelectKernel<A>>(scores, size, count, keys_.reserve(size + kLanes<A>), positions);
}

template class RowSelector<float>;
template class RowSelector<double>;

}  // namespace sprocket::kernels

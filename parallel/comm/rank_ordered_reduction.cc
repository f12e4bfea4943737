#include "parallel/comm/rank_ordered_reduction.h"

#include <algorithm>
#include <array>
#include <type_traits>

#include "base/bfloat16.h"

namespace sprocket::comm {
namespace {

using Half = _Float16;

// What contributions are summed in. Integers use their unsigned type, which wraps by definition.
template <class T>
struct Accumulator {
  using Type = T;
};
template <>
struct Accumulator<BFloat16> {
  using Type = float;
};
template <>
struct Accumulator<Half> {
  using Type = float;
};

template <class A>
A combine(ReduceOp op, A a, A b) {
  switch (op) {
    case ReduceOp::kSum:
      if constexpr (std::is_integral_v<A>) {
        using U = std::make_unsigned_t<A>;
        return static_cast<A>(static_cast<U>(static_cast<U>(a) + static_cast<U>(b)));
      } else {
        return a + b;
      }
    // A NaN on the left is unequal to itself, one on the right fails the comparison: both stay.
    case ReduceOp::kMax:
      return a >= b || a != a ? a : b;
    case ReduceOp::kMin:
      return a <= b || a != a ? a : b;
  }
  return a;
}

template <class T, ReduceOp op>
void reduce(std::span<const void* const> sources, void* out, int64_t count) {
  using A = typename Accumulator<T>::Type;
  constexpr int64_t kChunk = 512;
  std::array<A, kChunk> sum;
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t n = std::min(kChunk, count - begin);
    const T* first = static_cast<const T*>(sources[0]) + begin;
    for (int64_t i = 0; i < n; ++i) sum[i] = static_cast<A>(first[i]);
    for (const void* source : sources.subspan(1)) {
      const T* next = static_cast<const T*>(source) + begin;
      for (int64_t i = 0; i < n; ++i) sum[i] = combine<A>(op, sum[i], static_cast<A>(next[i]));
    }
    T* to = static_cast<T*>(out) + begin;
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<T>(sum[i]);
  }
}

template <class T>
void reduce(ReduceOp op, std::span<const void* const> sources, void* out, int64_t count) {
  switch (op) {
    case ReduceOp::kSum:
      return reduce<T, ReduceOp::kSum>(sources, out, count);
    case ReduceOp::kMax:
      return reduce<T, ReduceOp::kMax>(sources, out, count);
    case ReduceOp::kMin:
      return reduce<T, ReduceOp::kMin>(sources, out, count);
  }
}

}  // namespace

void reduce_in_rank_order(DType dtype, ReduceOp op, std::span<const void* const> sources, void* out,
                          int64_t count) {
  switch (dtype) {
    case DType::kF64:
      return reduce<double>(op, sources, out, count);
    case DType::kF32:
      return reduce<float>(op, sources, out, count);
    case DType::kBF16:
      return reduce<BFloat16>(op, sources, out, count);
    case DType::kF16:
      return reduce<Half>(op, sources, out, count);
    case DType::kI64:
      return reduce<int64_t>(op, sources, out, count);
    case DType::kI32:
      return reduce<int32_t>(op, sources, out, count);
    case DType::kU16:
      return reduce<uint16_t>(op, sources, out, count);
    case DType::kU8:
      return reduce<uint8_t>(op, sources, out, count);
  }
}

}  // namespace sprocket::comm

// Which element of a matrix each lane's register holds: the figures of mma.m16n8k16, .m16n8k8 and
// of wgmma in the PTX manual.
#pragma once

#include "tests/cuda_simulator/types.h"

namespace sprocket::cuda_simulator {

struct Element {
  int row, column;
};

// The i-th 16-bit element (two to a register) of A, 16 x 8 or 16 x 16.
constexpr Element a16_element(int lane, int i) {
  return {lane / 4 + (i & 2 ? 8 : 0), lane % 4 * 2 + (i & 1) + (i & 4 ? 8 : 0)};
}
// Of B, 8 or 16 x 8.
constexpr Element b16_element(int lane, int i) {
  return {lane % 4 * 2 + (i & 1) + (i & 2 ? 8 : 0), lane / 4};
}
// The i-th 32-bit element of A, 16 x 4 or 16 x 8, and of B.
constexpr Element a32_element(int lane, int i) {
  return {lane / 4 + (i & 1 ? 8 : 0), lane % 4 + (i & 2 ? 4 : 0)};
}
constexpr Element b32_element(int lane, int i) { return {lane % 4 + 4 * i, lane / 4}; }
// The i-th element of the accumulator, 16 x 8 n: wgmma's goes on to the right.
constexpr Element c_element(int lane, int i) {
  return {lane / 4 + (i & 2 ? 8 : 0), lane % 4 * 2 + (i & 1) + i / 4 * 8};
}

}  // namespace sprocket::cuda_simulator

// Descriptors of tensors for bulk copies, and where a box of one lies in memory.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <functional>

namespace sprocket::cuda_simulator {

constexpr int kMaxTensorRank = 5;

// What the simulator keeps in the 128 opaque bytes of a CUtensorMap.
struct TensorMap {
  uint64_t magic;
  uint64_t address;
  uint64_t extent[kMaxTensorRank];        // innermost first, in elements
  uint64_t stride[kMaxTensorRank];        // in bytes; [0] is the size of an element
  uint32_t box[kMaxTensorRank];           // in elements
  uint8_t rank, type, swizzle, nan_fill;  // CUtensorMapDataType; log2 of swizzled 16-byte units

  static constexpr uint64_t kMagic = 0x70616d726f736e74;
  uint64_t box_bytes() const;
};
static_assert(sizeof(TensorMap) <= sizeof(CUtensorMap));

// The swizzle of shared memory: bits 4 to 6 of an address are exchanged by bits 7 to 9, as many as
// `bits`.
constexpr uint64_t swizzled(uint64_t address, unsigned bits) {
  const uint64_t mask = ((uint64_t{1} << bits) - 1) << 4;
  return address ^ ((address >> 3) & mask);
}

// Calls f(address in global memory or 0 outside of the tensor, offset in the box before the
// swizzle) for each element of the box at the coordinates, innermost first.
void for_each_element(const TensorMap& map, const int32_t* coordinates,
                      const std::function<void(uint64_t, uint64_t)>& f);

// The driver's function; checks what the driver checks.
CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                      const cuuint64_t* extent, const cuuint64_t* strides, const cuuint32_t* box,
                      const cuuint32_t* element_strides, CUtensorMapInterleave interleave,
                      CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                      CUtensorMapFloatOOBfill fill);

}  // namespace sprocket::cuda_simulator

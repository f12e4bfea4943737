#include "tests/cuda_simulator/tensor_map.h"

#include <cstring>

namespace sprocket::cuda_simulator {
namespace {

unsigned element_bytes(CUtensorMapDataType type) {
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8:
      return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
      return 2;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32_FTZ:
    case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ:
      return 4;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
      return 8;
    case CU_TENSOR_MAP_DATA_TYPE_16U4_ALIGN8B:
    case CU_TENSOR_MAP_DATA_TYPE_16U4_ALIGN16B:
    case CU_TENSOR_MAP_DATA_TYPE_16U6_ALIGN16B:
      break;
  }
  return 0;
}

// log2 of how many units of 16 bytes are exchanged; -1: not simulated.
int swizzle_bits(CUtensorMapSwizzle swizzle) {
  if (swizzle == CU_TENSOR_MAP_SWIZZLE_NONE) return 0;
  if (swizzle == CU_TENSOR_MAP_SWIZZLE_32B) return 1;
  if (swizzle == CU_TENSOR_MAP_SWIZZLE_64B) return 2;
  if (swizzle == CU_TENSOR_MAP_SWIZZLE_128B) return 3;
  return -1;
}

}  // namespace

uint64_t TensorMap::box_bytes() const {
  uint64_t bytes = stride[0];
  for (int i = 0; i < rank; ++i) bytes *= box[i];
  return bytes;
}

void for_each_element(const TensorMap& map, const int32_t* coordinates,
                      const std::function<void(uint64_t, uint64_t)>& f) {
  uint32_t index[kMaxTensorRank] = {};
  const uint64_t elements = map.box_bytes() / map.stride[0];
  for (uint64_t e = 0; e < elements; ++e) {
    bool inside = true;
    uint64_t address = map.address;
    for (int i = 0; i < map.rank; ++i) {
      const int64_t at = int64_t{coordinates[i]} + index[i];
      inside = inside && at >= 0 && at < static_cast<int64_t>(map.extent[i]);
      address += static_cast<uint64_t>(at) * map.stride[i];
    }
    f(inside ? address : 0, e * map.stride[0]);
    for (int i = 0; i < map.rank && ++index[i] == map.box[i]; ++i) index[i] = 0;
  }
}

CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                      const cuuint64_t* extent, const cuuint64_t* strides, const cuuint32_t* box,
                      const cuuint32_t* element_strides, CUtensorMapInterleave interleave,
                      CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                      CUtensorMapFloatOOBfill fill) {
  TensorMap m{};
  const unsigned bytes = element_bytes(type);
  const int bits = swizzle_bits(swizzle);
  if (bytes == 0 || bits < 0 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE)
    return CUDA_ERROR_NOT_SUPPORTED;
  if (rank == 0 || rank > kMaxTensorRank) return CUDA_ERROR_INVALID_VALUE;
  if (reinterpret_cast<uint64_t>(map) % 64 != 0) return CUDA_ERROR_INVALID_VALUE;
  m.magic = TensorMap::kMagic;
  m.address = reinterpret_cast<uint64_t>(address);
  m.rank = static_cast<uint8_t>(rank);
  m.type = static_cast<uint8_t>(type);
  m.swizzle = static_cast<uint8_t>(bits);
  m.nan_fill = fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA;
  if (m.address % 16 != 0) return CUDA_ERROR_INVALID_VALUE;
  m.stride[0] = bytes;
  for (cuuint32_t i = 0; i < rank; ++i) {
    m.extent[i] = extent[i];
    m.box[i] = box[i];
    if (extent[i] == 0 || extent[i] > (uint64_t{1} << 32) || box[i] == 0 || box[i] > 256)
      return CUDA_ERROR_INVALID_VALUE;
    if (element_strides[i] != 1) return CUDA_ERROR_NOT_SUPPORTED;
    if (i == 0) continue;
    m.stride[i] = strides[i - 1];
    if (m.stride[i] % 16 != 0 || m.stride[i] >= (uint64_t{1} << 40))
      return CUDA_ERROR_INVALID_VALUE;
  }
  const uint64_t row = uint64_t{m.box[0]} * bytes;
  if (row % 16 != 0) return CUDA_ERROR_INVALID_VALUE;
  if (bits > 0 && row > (uint64_t{16} << bits)) return CUDA_ERROR_INVALID_VALUE;
  std::memset(map, 0, sizeof *map);
  std::memcpy(map, &m, sizeof m);
  return CUDA_SUCCESS;
}

}  // namespace sprocket::cuda_simulator

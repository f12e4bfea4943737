#include "kernels/cuda/segment_attention_sm90_maps.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>
#include <fmt/ranges.h>

#include "base/cuda_stream.h"
#include "base/error.h"
#include "kernels/cuda/segment_attention_sm90_tiles.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr unsigned kDriverVersion = 12000;  // whose form of the function this is

PFN_cuTensorMapEncodeTiled_v12000 find_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kDriverVersion,
                                              cudaEnableDefault, &found),
             "cudaGetDriverEntryPointByVersion");
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    throw CudaError(
        "attention on a CUDA device: this driver cannot make tensor maps; those of CUDA 12.0 and "
        "above can");
  }
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

// A refusal names `what`, which lies at `data`.
CUtensorMap encode(const TileMap& map, Element element, const void* data, const char* what) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encoder = find_encoder();
  CUtensorMap result{};
  const cuuint32_t element_strides[TileMap::kRank] = {1, 1, 1, 1, 1};
  const CUtensorMapDataType type = element == Element::kBFloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                                 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  const CUtensorMapSwizzle swizzle =
      map.box[0] == kPanelColumns ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B;
  const CUresult status =
      encoder(&result, type, TileMap::kRank, const_cast<void*>(data), map.extents, map.strides,
              map.box, element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
              CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    throw CudaError(
        fmt::format("attention on a CUDA device: cuTensorMapEncodeTiled refuses {} at {} with "
                    "extents {} and strides of {} bytes (error {})",
                    what, fmt::ptr(data), fmt::join(map.extents, ", "),
                    fmt::join(map.strides, ", "), static_cast<int>(status)));
  }
  return result;
}

}  // namespace

CUtensorMap make_tensor_map(const SegmentAttentionProblem& problem,
                            const DeviceRows<const void>& rows, const char* what) {
  if (rows.data == nullptr) return {};
  SPROCKET_CHECK(rows.row_stride > 0, "{} has rows {} elements apart; above 0 are legal", what,
                 rows.row_stride);
  return encode(tile_map(rows.row_stride, rows.head_stride, rows.batch_stride, problem.head_dim,
                         problem.table.heads, problem.table.batch),
                problem.element, rows.data, what);
}

BufferTensorMaps make_key_maps(const SegmentAttentionProblem& problem) {
  BufferTensorMaps maps{};
  for (int i = 0; i < problem.kv_buffers; ++i) {
    maps.of[i] = make_tensor_map(problem, problem.kv[i].k, "k");
  }
  return maps;
}

BufferTensorMaps make_value_maps(const SegmentAttentionProblem& problem) {
  BufferTensorMaps maps{};
  for (int i = 0; i < problem.kv_buffers; ++i) {
    maps.of[i] = make_tensor_map(problem, problem.kv[i].v, "v");
  }
  return maps;
}

CUtensorMap make_slot_map(const BackwardArguments& arguments) {
  const SegmentAttentionProblem& problem = arguments.problem;
  const PairSlot slot = pair_slot(problem.max_query_rows, problem.max_kv_rows);
  SPROCKET_CHECK(slot_rows(slot.key_tiles, arguments.slot_count) < kMapRows,
                 "a workspace of {} slots of {} keys; below 2^31 keys are legal",
                 arguments.slot_count, slot.key_tiles * kKeyTileRows);
  return encode(slot_map(slot, arguments.slot_count), problem.element, arguments.slots,
                "the workspace");
}

}  // namespace sprocket::kernels::cuda

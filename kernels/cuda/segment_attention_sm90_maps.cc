#include "kernels/cuda/segment_attention_sm90_maps.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

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

}  // namespace

CUtensorMap make_tensor_map(const SegmentAttentionProblem& problem,
                            const DeviceRows<const void>& rows, const char* what) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encoder = find_encoder();
  CUtensorMap result{};
  if (rows.data == nullptr) return result;
  SPROCKET_CHECK(rows.row_stride > 0, "{} has rows {} elements apart; above 0 are legal", what,
                 rows.row_stride);
  const TileMap map = tile_map(rows.row_stride, rows.head_stride, rows.batch_stride,
                               problem.head_dim, problem.table.heads, problem.table.batch);
  const cuuint32_t element_strides[TileMap::kRank] = {1, 1, 1, 1, 1};
  const CUtensorMapDataType type = problem.element == Element::kBFloat16
                                       ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                       : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  const CUresult status =
      encoder(&result, type, TileMap::kRank, const_cast<void*>(rows.data), map.extents, map.strides,
              map.box, element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
              CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    throw CudaError(fmt::format(
        "attention on a CUDA device: cuTensorMapEncodeTiled refuses {} at {} with strides {}, {}, "
        "{} (error {})",
        what, fmt::ptr(rows.data), rows.batch_stride, rows.row_stride, rows.head_stride,
        static_cast<int>(status)));
  }
  return result;
}

KvTensorMaps make_tensor_maps(const SegmentAttentionProblem& problem) {
  KvTensorMaps maps{};
  for (int i = 0; i < problem.kv_buffers; ++i) {
    maps.k[i] = make_tensor_map(problem, problem.kv[i].k, "k");
    maps.v[i] = make_tensor_map(problem, problem.kv[i].v, "v");
  }
  return maps;
}

}  // namespace sprocket::kernels::cuda

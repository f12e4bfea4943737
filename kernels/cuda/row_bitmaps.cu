#include "kernels/cuda/row_bitmaps.h"

#include <cub/block/block_scan.cuh>
#include <cub/warp/warp_scan.cuh>

#include "kernels/cuda/launch.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kLanes = 32;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kLanes;
constexpr int kScanThreads = 1024;
constexpr int kScanItems = 4;  // of a thread
constexpr uint32_t kAllLanes = 0xffffffffu;

// row_offsets[row + 1] = bits of the row; a warp for each row.
__global__ void __launch_bounds__(kThreads)
    count_kernel(const uint32_t* bitmaps, int64_t rows, int words, int32_t* row_offsets) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
  if (row >= rows) return;
  const int lane = threadIdx.x % kLanes;
  int count = 0;
  for (int word = lane; word < words; word += kLanes) count += __popc(bitmaps[row * words + word]);
  count = __reduce_add_sync(kAllLanes, count);
  if (lane == 0) row_offsets[row + 1] = count;
}

// Counts become sums up to and including each; one block of threads.
__global__ void __launch_bounds__(kScanThreads) sum_kernel(int64_t rows, int32_t* row_offsets) {
  using Scan = cub::BlockScan<int32_t, kScanThreads>;
  __shared__ typename Scan::TempStorage scratch;
  if (threadIdx.x == 0) row_offsets[0] = 0;
  int32_t before = 0;
  for (int64_t first = 0; first < rows; first += kScanThreads * kScanItems) {
    const int64_t row = first + threadIdx.x * kScanItems;
    int32_t items[kScanItems];
#pragma unroll
    for (int i = 0; i < kScanItems; ++i) items[i] = row + i < rows ? row_offsets[row + i + 1] : 0;
    int32_t sum = 0;
    Scan(scratch).InclusiveSum(items, items, sum);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kScanItems; ++i) {
      if (row + i < rows) row_offsets[row + i + 1] = before + items[i];
    }
    before += sum;
  }
}

// A warp for each row, a word for each lane.
__global__ void __launch_bounds__(kThreads)
    list_kernel(const uint32_t* bitmaps, int64_t rows, int words, const int32_t* row_offsets,
                int64_t max_pairs, int32_t* kv_block) {
  using Scan = cub::WarpScan<int32_t>;
  __shared__ typename Scan::TempStorage scratch[kWarps];
  const int warp = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  if (row >= rows) return;
  int64_t place = row_offsets[row];
  for (int first = 0; first < words; first += kLanes) {
    uint32_t bits = first + lane < words ? bitmaps[row * words + first + lane] : 0;
    int32_t before = 0, count = 0;
    Scan(scratch[warp]).ExclusiveSum(__popc(bits), before, count);
    for (int64_t to = place + before; bits != 0 && to < max_pairs; ++to) {
      kv_block[to] = (first + lane) * 32 + __ffs(static_cast<int>(bits)) - 1;
      bits &= bits - 1;
    }
    place += count;
    __syncwarp();
  }
}

}  // namespace

DeviceTable table_of_bitmaps(const DeviceTable& shape, const uint32_t* bitmaps,
                             const DeviceTableBuffers& to, StreamView stream) {
  SPROCKET_CHECK(shape.max_pairs < (int64_t{1} << 31), "{} pairs, more than a table holds",
                 shape.max_pairs);
  const int64_t rows = shape.rows();
  const int words = static_cast<int>(bitmap_words(shape.kv_blocks));
  const unsigned grid = grid_of(rows, kWarps);
  const cudaStream_t handle = stream_of(stream);
  if (grid > 0) {
    count_kernel<<<grid, kThreads, 0, handle>>>(bitmaps, rows, words, to.row_offsets);
    check_launch("table_of_bitmaps: count");
  }
  sum_kernel<<<1, kScanThreads, 0, handle>>>(rows, to.row_offsets);
  check_launch("table_of_bitmaps: sum");
  if (grid > 0) {
    list_kernel<<<grid, kThreads, 0, handle>>>(bitmaps, rows, words, to.row_offsets,
                                               shape.max_pairs, to.kv_block);
    check_launch("table_of_bitmaps: list");
  }
  DeviceTable table = shape;
  table.row_offsets = to.row_offsets;
  table.kv_block = to.kv_block;
  return table;
}

}  // namespace sprocket::kernels::cuda

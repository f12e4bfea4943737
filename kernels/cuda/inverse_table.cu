#include "kernels/cuda/inverse_table.h"

#include <cub/block/block_scan.cuh>

#include "kernels/cuda/launch.h"

// A head's query blocks are cut into chunks. Columns are counted in every chunk; sums over the
// chunks before it tell each chunk where its entries of a column go; rows of a chunk then follow
// one another, so that a column's entries ascend.

namespace sprocket::kernels::cuda {
namespace {

constexpr int kChunkRows = 32;
constexpr int kThreads = 128;      // of a chunk
constexpr int kScanThreads = 256;  // of a head

int64_t chunks_of(const DeviceTable& table) {
  return (table.query_blocks + kChunkRows - 1) / kChunkRows;
}

// Rows of one chunk of one head; blockIdx.x counts chunks, head by head.
struct ChunkRows {
  int64_t batch_head;
  int first, last;    // query blocks
  int64_t first_row;  // of the table
  __device__ ChunkRows(const DeviceTable& table, int chunks) {
    batch_head = blockIdx.x / chunks;
    first = static_cast<int>(blockIdx.x % chunks) * kChunkRows;
    last = min(first + kChunkRows, table.query_blocks);
    first_row = batch_head * table.query_blocks + first;
  }
  __device__ int count() const { return last - first; }
};

// counts[chunk of all heads][kv_blocks]
__global__ void __launch_bounds__(kThreads)
    count_kernel(DeviceTable table, int chunks, int32_t* counts) {
  extern __shared__ int32_t histogram[];
  const ChunkRows rows(table, chunks);
  for (int j = threadIdx.x; j < table.kv_blocks; j += kThreads) histogram[j] = 0;
  __syncthreads();
  const int32_t end = table.row_offsets[rows.first_row + rows.count()];
  for (int32_t pair = table.row_offsets[rows.first_row] + static_cast<int32_t>(threadIdx.x);
       pair < end; pair += kThreads) {
    atomicAdd(&histogram[table.kv_block[pair]], 1);  // integers: in any order
  }
  __syncthreads();
  int32_t* to = counts + static_cast<int64_t>(blockIdx.x) * table.kv_blocks;
  for (int j = threadIdx.x; j < table.kv_blocks; j += kThreads) to[j] = histogram[j];
}

// counts become the place of each chunk's first entry of each column. A head's pairs lie between
// the same bounds in the table and in its inverse.
__global__ void __launch_bounds__(kScanThreads)
    offsets_kernel(DeviceTable table, int chunks, int32_t* counts, int32_t* column_offsets) {
  using Scan = cub::BlockScan<int32_t, kScanThreads>;
  __shared__ typename Scan::TempStorage scratch;
  const int64_t batch_head = blockIdx.x, n = table.kv_blocks;
  int32_t* head_counts = counts + batch_head * chunks * n;
  int32_t base = table.row_offsets[batch_head * table.query_blocks];
  for (int64_t first = 0; first < n; first += kScanThreads) {
    const int64_t j = first + threadIdx.x;
    int32_t total = 0;
    if (j < n) {
      for (int chunk = 0; chunk < chunks; ++chunk) total += head_counts[chunk * n + j];
    }
    int32_t before = 0, sum = 0;
    Scan(scratch).ExclusiveSum(total, before, sum);
    __syncthreads();
    if (j < n) {
      int32_t place = base + before;
      column_offsets[batch_head * n + j] = place;
      for (int chunk = 0; chunk < chunks; ++chunk) {
        const int32_t count = head_counts[chunk * n + j];
        head_counts[chunk * n + j] = place;
        place += count;
      }
    }
    base += sum;
  }
  if (blockIdx.x == gridDim.x - 1 && threadIdx.x == 0) column_offsets[table.columns()] = base;
}

__global__ void __launch_bounds__(kThreads)
    fill_kernel(DeviceTable table, int chunks, const int32_t* places, int32_t* query_block,
                int32_t* pairs) {
  extern __shared__ int32_t next[];
  const ChunkRows rows(table, chunks);
  const int32_t* from = places + static_cast<int64_t>(blockIdx.x) * table.kv_blocks;
  for (int j = threadIdx.x; j < table.kv_blocks; j += kThreads) next[j] = from[j];
  int32_t begin = table.row_offsets[rows.first_row];
  for (int i = 0; i < rows.count(); ++i) {
    __syncthreads();  // a row lists a column once: threads meet between rows alone
    const int32_t end = table.row_offsets[rows.first_row + i + 1];
    for (int32_t pair = begin + static_cast<int32_t>(threadIdx.x); pair < end; pair += kThreads) {
      const int32_t place = next[table.kv_block[pair]]++;
      query_block[place] = rows.first + i;
      pairs[place] = pair;
    }
    begin = end;
  }
}

// Bits of one chunk's columns, which begin at bit `shift` of the head's first word.
__global__ void __launch_bounds__(kThreads)
    mark_kernel(DeviceTable table, int chunks, uint32_t* bitmap) {
  extern __shared__ uint32_t words[];
  const ChunkRows rows(table, chunks);
  const int64_t first_bit = rows.batch_head * table.kv_blocks;
  const int shift = static_cast<int>(first_bit % 32);
  const int count = (shift + table.kv_blocks + 31) / 32;
  for (int word = threadIdx.x; word < count; word += kThreads) words[word] = 0;
  __syncthreads();
  const int32_t end = table.row_offsets[rows.first_row + rows.count()];
  for (int32_t pair = table.row_offsets[rows.first_row] + static_cast<int32_t>(threadIdx.x);
       pair < end; pair += kThreads) {
    const int bit = shift + table.kv_block[pair];
    atomicOr(&words[bit / 32], 1u << (bit % 32));
  }
  __syncthreads();
  for (int word = threadIdx.x; word < count; word += kThreads) {
    if (words[word] != 0) atomicOr(&bitmap[first_bit / 32 + word], words[word]);
  }
}

void check_table(const DeviceTable& table) {
  SPROCKET_CHECK(table.batch >= 0 && table.heads >= 0 && table.query_blocks >= 0 &&
                     table.kv_blocks >= 0 && table.max_pairs >= 0 && table.max_pairs < (1ll << 31),
                 "a table of [{}, {}, {}, {}] with up to {} pairs", table.batch, table.heads,
                 table.query_blocks, table.kv_blocks, table.max_pairs);
}

// What a block of threads needs, allowed for the kernel.
template <class Kernel>
int64_t shared_words(Kernel* kernel, int64_t words, const DeviceTable& table) {
  const int64_t bytes = 4 * words, limit = shared_memory_limit();
  SPROCKET_CHECK(bytes <= limit, "{} KV blocks need {} bytes of shared memory, the device has {}",
                 table.kv_blocks, bytes, limit);
  allow_shared_memory(kernel, bytes);
  return bytes;
}

}  // namespace

int64_t inverse_table_workspace_bytes(const DeviceTable& table) {
  return 4 * chunks_of(table) * table.columns();
}

DeviceInverseTable build_inverse_table(const DeviceTable& table, const InverseTableBuffers& to,
                                       void* workspace, StreamView stream) {
  check_table(table);
  const cudaStream_t handle = stream_of(stream);
  const DeviceInverseTable inverse{to.column_offsets, to.query_block, to.pair};
  if (table.columns() == 0) {
    check_cuda(cudaMemsetAsync(to.column_offsets, 0, sizeof(int32_t), handle), "cudaMemsetAsync");
    return inverse;
  }
  const int chunks = static_cast<int>(chunks_of(table));
  const int64_t heads = int64_t{table.batch} * table.heads;
  const unsigned grid = grid_of(heads * chunks, 1);
  int32_t* counts = static_cast<int32_t*>(workspace);
  if (grid > 0) {
    const int64_t bytes = shared_words(count_kernel, table.kv_blocks, table);
    count_kernel<<<grid, kThreads, bytes, handle>>>(table, chunks, counts);
    check_launch("build_inverse_table: count");
  }
  offsets_kernel<<<grid_of(heads, 1), kScanThreads, 0, handle>>>(table, chunks, counts,
                                                                 to.column_offsets);
  check_launch("build_inverse_table: offsets");
  if (grid > 0) {
    const int64_t bytes = shared_words(fill_kernel, table.kv_blocks, table);
    fill_kernel<<<grid, kThreads, bytes, handle>>>(table, chunks, counts, to.query_block, to.pair);
    check_launch("build_inverse_table: fill");
  }
  return inverse;
}

int64_t need_bitmap_bytes(const DeviceTable& table) { return (table.columns() + 31) / 32 * 4; }

void mark_needed_blocks(const DeviceTable& table, void* bitmap, StreamView stream) {
  check_table(table);
  const cudaStream_t handle = stream_of(stream);
  check_cuda(cudaMemsetAsync(bitmap, 0, need_bitmap_bytes(table), handle), "cudaMemsetAsync");
  const int64_t chunks = chunks_of(table);
  const unsigned grid = grid_of(int64_t{table.batch} * table.heads * chunks, 1);
  if (grid == 0 || table.kv_blocks == 0) return;
  const int64_t bytes = shared_words(mark_kernel, (table.kv_blocks + 62) / 32, table);
  mark_kernel<<<grid, kThreads, bytes, handle>>>(table, static_cast<int>(chunks),
                                                 static_cast<uint32_t*>(bitmap));
  check_launch("mark_needed_blocks");
}

}  // namespace sprocket::kernels::cuda

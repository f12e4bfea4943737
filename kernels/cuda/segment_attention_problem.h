// What a segment attention call on a device works on. Plain structs that live on the host and
// travel by value; every pointer in them is to device memory, which the caller owns and keeps until
// the stream is past the call.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_table.h"

namespace sprocket::kernels::cuda {

enum class Element { kBFloat16, kFloat16 };

// Which kernels do the work. kSm80: mma.sync and cp.async, compute capability 8.0 and above. kSm90:
// tensor maps and wgmma, compute capability 9.0.
enum class KernelFamily { kSm80, kSm90 };

// Element (b, row, h, d) is data[b * batch_stride + row * row_stride + h * head_stride + d]. The
// data and the strides are multiples of 16 bytes. Strides may be 0; of family kSm90 those of rows
// are above 0, and a buffer's rows below 2^31.
template <class T>
struct DeviceRows {
  T* data = nullptr;
  int64_t batch_stride = 0;
  int64_t row_stride = 0;
  int64_t head_stride = 0;
};

struct DeviceKvBuffer {
  DeviceRows<const void> k, v;
};

struct DeviceKvGradBuffer {
  DeviceRows<float> dk, dv;
};

inline constexpr int kMaxKvBuffers = 8;
inline constexpr int kMaxBlockRows = 128;

// The contract is that of kernels::SegmentAttentionProblem.
struct SegmentAttentionProblem {
  KernelFamily family = KernelFamily::kSm80;
  Element element = Element::kBFloat16;  // of q, k, v and dout
  int head_dim = 0;                      // 64 or 128
  float scale = 1;                       // positive
  DeviceTable table;
  DeviceBlockMap map;
  int first_head = 0, last_head = 0;  // of batch x heads: those computed, nothing else is touched

  int64_t queries = 0;                     // rows of q, query_offsets[query_blocks]
  const int32_t* query_offsets = nullptr;  // [query_blocks + 1] first row of each query block
  const int32_t* query_rows = nullptr;     // [table.rows()] first rows that take part; null: all
  int max_query_rows = kMaxBlockRows;      // a bound on the rows of a block that take part
  int max_kv_rows = kMaxBlockRows;         // a bound on the rows of a KV block
  int max_row_pairs = 0;                   // a bound on the blocks that a table row lists

  DeviceRows<const void> q;
  int kv_buffers = 0;
  DeviceKvBuffer kv[kMaxKvBuffers];
};

}  // namespace sprocket::kernels::cuda

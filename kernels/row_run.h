// Rows of a tensor that lie together in a message. For host and device code.
#pragma once

#include <cstdint>

namespace sprocket::kernels {

// `rows` consecutive rows of one (batch, head) of the tensor, which lie together in the message.
struct RowRun {
  int32_t batch = 0;
  int32_t head = 0;
  int64_t first_row = 0;  // of the tensor
  int64_t rows = 0;
  int64_t packed_row = 0;  // of the message, which has head_dim elements a row
};

}  // namespace sprocket::kernels

// Rows of a SegmentTable that threads find in any order and of any length.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/segment_table.h"

namespace sprocket::kernels {

// Every row is added once, by any thread; the table does not depend on which. Memory: the ids,
// twice while table() runs.
class TableRows {
 public:
  TableRows(int batch, int heads, int query_blocks, int kv_blocks, int threads);

  // ids: ascending, each in [0, kv_blocks). thread: in [0, threads), the calling one's alone.
  void add(int thread, int64_t row, std::span<const int32_t> ids);
  SegmentTable table() const;

 private:
  struct Place {
    int32_t thread = -1;
    int32_t count = 0;
    int64_t first = 0;  // in the thread's list
  };
  SegmentTable shape_;
  int threads_;
  std::vector<Place> places_;  // [rows]
  std::vector<std::vector<int32_t>> lists_;
};

}  // namespace sprocket::kernels

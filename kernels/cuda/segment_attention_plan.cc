#include "kernels/cuda/segment_attention_plan.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/cuda/segment_attention_tiles.h"

namespace sprocket::kernels::cuda {
namespace {

// Parts of `total` that hold at most `most` each, as equal as can be: the size of the largest.
int64_t even_part(int64_t total, int64_t most) {
  const int64_t parts = (total + most - 1) / most;
  return (total + parts - 1) / parts;
}

}  // namespace

SegmentAttentionBackwardPlan plan_segment_attention_backward(const SegmentAttentionProblem& problem,
                                                             int64_t wanted_bytes) {
  const DeviceTable& table = problem.table;
  SPROCKET_CHECK(problem.max_row_pairs >= 0 && problem.max_row_pairs <= table.kv_blocks,
                 "a row lists at most {} of {} blocks", problem.max_row_pairs, table.kv_blocks);
  const int64_t heads = problem.last_head - problem.first_head;
  const int64_t row_slots = problem.max_row_pairs;
  const int64_t head_slots = row_slots * table.query_blocks;
  const int64_t all_slots = std::min(heads * head_slots, table.max_pairs);
  // Where no query or no key is there, no slot holds anything.
  if (all_slots == 0 || problem.max_query_rows == 0 || problem.max_kv_rows == 0) return {};
  const int64_t slot_bytes = 2 * pair_slot(problem.max_query_rows, problem.max_kv_rows).elements();
  const int64_t affordable = std::max<int64_t>(wanted_bytes / slot_bytes, row_slots);
  int64_t group_heads = heads, group_blocks = table.query_blocks;
  int64_t slots = all_slots;
  if (affordable < all_slots) {
    if (affordable >= head_slots) {
      group_heads = even_part(heads, affordable / head_slots);
    } else {
      group_heads = 1;
      group_blocks = even_part(table.query_blocks, affordable / row_slots);
    }
    slots = std::min(all_slots, group_heads * group_blocks * row_slots);
  }
  return {static_cast<int>(group_heads), static_cast<int>(group_blocks), slots, slots * slot_bytes};
}

}  // namespace sprocket::kernels::cuda

// How a backward is cut into groups that its workspace can hold.
//
// The backward has five products for a pair: a pass that keeps keys computes S, dP, dV and dK and
// leaves the pair's gradient of the scores in the workspace, in the element type; a pass that keeps
// queries sums dQ from them. A pair takes a slot of 2 * 64 * ceil(max_kv_rows / 64) * Q bytes, Q =
// max_query_rows rounded up to 32, 64 or 128: 8 KiB for 64 x 64 rows. A group is a range of heads,
// or of query blocks of one head; the two passes run group by group, in ascending order.
#pragma once

#include <cstdint>

#include "kernels/cuda/segment_attention_problem.h"

namespace sprocket::kernels::cuda {

struct SegmentAttentionBackwardPlan {
  int heads_per_group = 0;         // above 1 only with all query blocks
  int query_blocks_per_group = 0;  // the last group of either kind may be smaller
  int64_t slots = 0;
  int64_t workspace_bytes = 0;
};

// The largest groups whose slots fit into `wanted_bytes`, of about equal sizes; at least one query
// block of one head, which takes max_row_pairs slots, however little is wanted. dQ and, where a
// group has whole heads, dK and dV do not depend on the groups; where it has not, dK and dV are
// summed in the same order with one more rounding for each group.
SegmentAttentionBackwardPlan plan_segment_attention_backward(const SegmentAttentionProblem& problem,
                                                             int64_t wanted_bytes);

}  // namespace sprocket::kernels::cuda

// What hosts and devices share of query pruning (kernels/query_pruning.h). C++17.
#pragma once

namespace sprocket::kernels {

// Which kept token of its block a pruned one copies; ties go to the smaller index.
enum class PruningRecovery {
  kNearestPosition,  // smallest Euclidean distance of the (t, h, w) positions
  kNearestIndex,     // smallest distance along the packed index
};

}  // namespace sprocket::kernels

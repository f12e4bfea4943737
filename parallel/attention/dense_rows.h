// Which passes are dense attention: every query row attends to every key row that the map has, with
// no bias. They are the function that dense attention kernels compute, and no other pass is: a
// table that lacks a single pair goes through the segment kernel, however nearly full it is.
#pragma once

#include <optional>
#include <vector>

#include "parallel/attention/segment_pass.h"

namespace sprocket::parallel {

// Rows of a KV buffer, all of the map's there.
struct DenseRows {
  int buffer = 0;
  int64_t first = 0, count = 0;
  bool operator==(const DenseRows&) const = default;
};

// One entry for each buffer that the map names, ascending; null where
//  - only some heads are computed, or heads have maps of their own;
//  - only some query rows take part, or query blocks do not make up q's rows, of which there is
//  one;
//  - a query block does not list a block that the map has, or the map has none;
//  - a block has a bias;
//  - a buffer's blocks are not one run of rows, in any order, or are one row alone, which cuDNN
//    does not take.
// Reads the table once where it is full of these blocks, and else up to the first row that is not.
std::optional<std::vector<DenseRows>> dense_rows(const QuerySide& query,
                                                 const kernels::KvBlockMap& map,
                                                 const std::optional<kernels::HeadRange>& heads);

}  // namespace sprocket::parallel

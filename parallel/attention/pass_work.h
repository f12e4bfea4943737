// What passes of segment attention take of the machine, for the report: of every pair of a query
// row and a key row that a pass computes 4 floating-point operations for each channel, in the
// backward 10 (two and five products); queries, outputs, keys, values and gradients move once.
#pragma once

#include <optional>

#include "base/timeline.h"
#include "parallel/attention/segment_pass.h"

namespace sprocket::parallel {

// (query row, key row) pairs of the query's table whose blocks the map has. Reads the table, unless
// it is full or all mapped blocks have as many rows. heads: as in forward_pass.
double pass_pairs(const QuerySide& query, const kernels::KvBlockMap& map,
                  const std::optional<kernels::HeadRange>& heads = {});

// Of forward_pass and backward_pass with the same arguments.
Work forward_pass_work(const QuerySide& query, const kernels::KvBlockMap& map,
                       const std::optional<kernels::HeadRange>& heads = {});
Work backward_pass_work(const QuerySide& query, const kernels::KvBlockMap& map,
                        const std::optional<kernels::HeadRange>& heads = {});

}  // namespace sprocket::parallel

// BSA's selections on the device: from block means to the table that kernels/threshold_selection.h
// describes.
//
// Scores, statistics, masses and their sums have the bits of the host's on processors with fused
// multiply-adds, so the table is the host's table. A row of scores lives in shared memory, and a
// row of the table as a bitmap until the lengths of all rows are known.
//
// Pointers are to device memory. Everything is asynchronous on `stream`, allocates nothing and
// throws CudaError when a launch is refused. A broken precondition is InternalError, and so are
// more KV blocks than fit: 2,500 where a block of threads may have 99 KiB of shared memory, 6,600
// with 227 KiB.
#pragma once

#include <cstdint>

#include "base/stream.h"
#include "kernels/cuda/coarse_attention.h"
#include "kernels/cuda/device_table.h"
#include "kernels/threshold_rule.h"

namespace sprocket::kernels::cuda {

// Pairs that no selection of the problem exceeds: all of them. Below 2^31.
int64_t most_pairs(const DeviceCoarseProblem& problem);

int64_t threshold_workspace_bytes(const DeviceCoarseProblem& problem);

// problem.vc and problem.prefix_rule are not looked at: every row lists the prefix blocks, and rows
// of prefix query blocks list everything. bounds: of the video blocks (threshold_bounds). The table
// is written to `to`, with room for most_pairs. workspace: 4-byte aligned, any contents.
DeviceTable select_by_threshold(const DeviceCoarseProblem& problem, const ThresholdBounds& bounds,
                                const DeviceTableBuffers& to, void* workspace, StreamView stream);

}  // namespace sprocket::kernels::cuda

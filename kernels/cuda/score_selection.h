// Selections of rows of sampled scores on the device: ASA's (kernels/mass_selection.h) and PSA's
// (kernels/level_selection.h), from scores that are already there.
//
// The same scores give the host's table: orders and sums are the host's. A row and its sorted copy
// live in shared memory, a row of the table as a bitmap until the lengths of all rows are known.
//
// Pointers are to device memory. Everything is asynchronous on `stream`, allocates nothing and
// throws CudaError when a launch is refused. A broken precondition is InternalError, and so are
// more video blocks than fit: 12,600 where a block of threads may have 99 KiB of shared memory.
#pragma once

#include <cstdint>

#include "base/stream.h"
#include "kernels/cuda/device_table.h"
#include "kernels/level_rule.h"
#include "kernels/mass_rule.h"

namespace sprocket::kernels::cuda {

struct DeviceScores {
  int batch = 0;
  int heads = 0;
  int query_blocks = 0;
  int kv_blocks = 0;  // all of them, prefix included
  int first_query_block = 0;
  int prefix_blocks = 0;
  // [batch * heads, query_blocks, kv_blocks - prefix_blocks], what sampled_scores gives; rows of
  // prefix query blocks are not looked at.
  const float* scores = nullptr;

  constexpr int video_blocks() const { return kv_blocks - prefix_blocks; }
  constexpr int64_t rows() const { return static_cast<int64_t>(batch) * heads * query_blocks; }
};

// Room that the table needs: pairs that no selection exceeds.
int64_t mass_pairs(const DeviceScores& scores, const MassBounds& bounds);
int64_t mass_workspace_bytes(const DeviceScores& scores);
// bounds: mass_bounds of the video blocks. workspace: 4-byte aligned, any contents.
DeviceTable select_by_mass(const DeviceScores& scores, const MassBounds& bounds,
                           const DeviceTableBuffers& to, void* workspace, StreamView stream);

// The pyramid of the whole sequence (kernels/pyramid.h).
struct DevicePyramid {
  int segments = 0;
  const int32_t* ranges = nullptr;  // [kv_blocks, levels, 2] first segment and count
};

int64_t level_pairs(const DeviceScores& scores, const DevicePyramid& pyramid);
int64_t level_workspace_bytes(const DeviceScores& scores, const DevicePyramid& pyramid);
// The table over segment ids; bounds: level_bounds of the video blocks. caps: [batch, heads,
// kv_blocks] of similarity_caps, or null. levels: [batch, heads, query_blocks, kv_blocks],
// overwritten with the level of every pair, or null.
DeviceTable select_levels(const DeviceScores& scores, const LevelBounds& bounds,
                          const DevicePyramid& pyramid, const uint8_t* caps, uint8_t* levels,
                          const DeviceTableBuffers& to, void* workspace, StreamView stream);

}  // namespace sprocket::kernels::cuda

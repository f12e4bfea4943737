// One layer's sparse attention on a device, as the benchmarks measure it: VSA's selection over
// blocks of consecutive tokens, tables, segment attention and its backward, batch 1, bf16.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/decimal.h"
#include "base/stream.h"

namespace sprocket::bench {

struct DeviceLayerShape {
  int64_t tokens = 0;
  int heads = 0;
  int head_dim = 0;
  int block_rows = 64;  // the last block may have fewer
  Decimal sparsity;
  int major = 0, minor = 0;  // of the compute capability whose kernels do the work
  int64_t workspace_bytes = int64_t{1} << 30;  // that the backward may use
};

// What a layer has to do, from its table.
struct DeviceLayerWork {
  int64_t pairs = 0;  // of blocks
  int64_t area = 0;   // of queries and keys in them
};

// Largest relative errors, ||found - exact|| / ||exact||, of a few rows; of lse the absolute error.
struct DeviceLayerErrors {
  double out = 0, lse = 0, dq = 0, dk = 0, dv = 0;
};

class DeviceAttentionLayer {
 public:
  // Independent standard normal q, k, v and gradient of the output, in memory [L, H, D].
  explicit DeviceAttentionLayer(const DeviceLayerShape& shape);
  ~DeviceAttentionLayer();
  DeviceAttentionLayer(DeviceAttentionLayer&&) noexcept;
  DeviceAttentionLayer& operator=(DeviceAttentionLayer&&) noexcept;

  struct Stage {
    std::string name;
    std::function<void(StreamView)> call;  // only enqueues
  };
  // In the order of a training step; each needs what those before it have left. docs/gpu.md says
  // what they are.
  const std::vector<Stage>& stages() const;

  // After all stages have been enqueued once; both wait for the device.
  DeviceLayerWork work() const;
  // Of rows in the first and the last head: the first row, one in the middle and the last one,
  // against a plain softmax in double over the blocks that the table lists; lse and delta of the
  // queries that a key's gradient sums over are the device's. Runs the backward once more.
  DeviceLayerErrors errors(StreamView stream) const;

 private:
  class Body;
  std::unique_ptr<Body> body_;
};

}  // namespace sprocket::bench

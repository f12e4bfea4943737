// Gradients of all ranks to one update of the master weights.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "base/timeline.h"
#include "configs/job.pb.h"
#include "models/parameter_store.h"
#include "parallel/comm/communicator.h"
#include "runtime/checkpoint/flat_state.h"

namespace sprocket::runtime {

// Sums the flat gradients over `group`, which moves memory of their device, as one bucket; on the
// processor in rank order.
void sum_gradients(models::ParameterStore& parameters, comm::Communicator& group);

// AdamW on fp32 master weights; the moments live beside them in flat buffers. Weight decay acts on
// all parameters.
class Optimizer {
 public:
  // `parameters` (fp32) must outlive the optimizer.
  Optimizer(const config::Optimizer& options, models::ParameterStore& parameters, int threads);

  // Global 2-norm of the gradients, accumulated in double.
  double gradient_norm() const;
  // Scales the gradients down to clip_norm, given their norm, and updates the weights.
  void update(double learning_rate, double gradient_norm);

  // Of gradient_norm() and update() together: bytes alone.
  Work work() const;

  int64_t moments_bytes() const { return static_cast<int64_t>(mean_.nbytes() + square_.nbytes()); }
  // Updates made so far; part of a checkpoint.
  int64_t updates() const { return updates_; }
  void set_updates(int64_t updates) { updates_ = updates; }
  // Named exp_avg.<name> and exp_avg_sq.<name>.
  FlatState checkpoint_state() const;

 private:
  config::Optimizer options_;
  models::ParameterStore& parameters_;
  int threads_;
  int64_t updates_ = 0;
  at::Tensor mean_, square_;
};

}  // namespace sprocket::runtime

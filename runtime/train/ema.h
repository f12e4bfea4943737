// A moving average of a model's weights.
#pragma once

#include <ATen/core/Tensor.h>

#include "models/parameter_store.h"

namespace sprocket::runtime {

class Ema {
 public:
  // Starts as the weights are. `parameters` must outlive it. decay in (0, 1).
  Ema(models::ParameterStore& parameters, double decay);

  // average = decay average + (1 - decay) weights; after every update of the weights.
  void update();
  // In the layout of the store's flat tensors and on their device; part of a checkpoint.
  const at::Tensor& flat() const { return average_; }
  // The weights become the average and the average the weights.
  void swap();

 private:
  models::ParameterStore& parameters_;
  const double decay_;
  at::Tensor average_;
};

// While it lives, the weights are the average, where there is one: `ema` may be null.
class AverageScope {
 public:
  explicit AverageScope(Ema* ema) : ema_(ema) {
    if (ema_) ema_->swap();
  }
  ~AverageScope() {
    if (ema_) ema_->swap();
  }
  AverageScope(const AverageScope&) = delete;
  AverageScope& operator=(const AverageScope&) = delete;

 private:
  Ema* ema_;
};

}  // namespace sprocket::runtime

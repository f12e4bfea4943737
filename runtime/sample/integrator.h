// Carries a sampler's plan out on tensors.
#pragma once

#include <functional>

#include <ATen/core/Tensor.h>

#include "runtime/sample/sampler_plan.h"

namespace sprocket::runtime {

class Integrator {
 public:
  explicit Integrator(SamplerPlan plan) : plan_(std::move(plan)) {}

  const SamplerPlan& plan() const { return plan_; }

  // Steps done.
  int done() const { return done_; }

  // x at plan()[done()].level and what the network predicts there, equally shaped, of one dtype and
  // device, to x at the next level, as a new tensor. `noise`, asked at most once, gives a tensor
  // like x of standard normal numbers. Throws InternalError after the last step.
  at::Tensor step(const at::Tensor& x, const at::Tensor& v,
                  const std::function<at::Tensor()>& noise);

 private:
  SamplerPlan plan_;
  int done_ = 0;
  at::Tensor previous_;  // x of the step before, corrected
  at::Tensor clean_[2];  // m of the step before, and of the one before that
};

}  // namespace sprocket::runtime

#include "runtime/sample/integrator.h"

#include <ATen/TensorOperators.h>

#include "base/error.h"

namespace sprocket::runtime {
namespace {

void add(at::Tensor& sum, const at::Tensor& term, double weight) {
  if (weight != 0) sum = sum + term * weight;
}

}  // namespace

at::Tensor Integrator::step(const at::Tensor& x, const at::Tensor& v,
                            const std::function<at::Tensor()>& noise) {
  SPROCKET_CHECK_LT(done_, static_cast<int>(plan_.size()));
  const SamplerStep& step = plan_[done_++];
  const at::Tensor clean = x * step.clean.x_weight + v * step.clean.v_weight;
  at::Tensor corrected = x;
  if (step.correction) {
    corrected = previous_ * step.correction->previous;
    add(corrected, clean, step.correction->clean[0]);
    add(corrected, clean_[0], step.correction->clean[1]);
    add(corrected, clean_[1], step.correction->clean[2]);
  }
  const SamplerStep::Update& update = step.update;
  at::Tensor next = corrected * update.x_weight;
  add(next, v, update.v_weight);
  add(next, clean, update.clean[0]);
  add(next, clean_[0], update.clean[1]);
  if (update.noise_weight != 0) add(next, noise(), update.noise_weight);
  previous_ = corrected;
  clean_[1] = clean_[0];
  clean_[0] = clean;
  return next;
}

}  // namespace sprocket::runtime

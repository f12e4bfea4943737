#include "runtime/train/optimizer.h"

#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "base/error.h"
#include "kernels/elementwise.h"
#include "parallel/tensor_buffer.h"
#include "runtime/train/optimizer_device.h"

namespace sprocket::runtime {

void sum_gradients(models::ParameterStore& parameters, comm::Communicator& group) {
  const at::Tensor& gradients = parameters.flat_gradients();
  const StreamView stream = parallel::stream_of(gradients);
  group.all_reduce(parallel::buffer_of(gradients), comm::ReduceOp::kSum, stream).wait(stream);
}

Optimizer::Optimizer(const config::Optimizer& options, models::ParameterStore& parameters,
                     int threads)
    : options_(options),
      parameters_(parameters),
      threads_(threads),
      mean_(at::zeros_like(parameters.flat_parameters())),
      square_(at::zeros_like(parameters.flat_parameters())) {}

double Optimizer::gradient_norm() const {
  const at::Tensor& gradients = parameters_.flat_gradients();
  if (!gradients.is_cpu()) return std::sqrt(device::sum_of_squares(gradients));
  return std::sqrt(
      kernels::sum_of_squares(gradients.data_ptr<float>(), gradients.numel(), threads_));
}

void Optimizer::update(double learning_rate, double gradient_norm) {
  kernels::AdamWStep step;
  step.learning_rate = learning_rate;
  step.beta1 = options_.beta1();
  step.beta2 = options_.beta2();
  step.eps = options_.epsilon();
  step.weight_decay = options_.weight_decay();
  if (options_.clip_norm() > 0 && gradient_norm > options_.clip_norm()) {
    step.gradient_scale = options_.clip_norm() / gradient_norm;
  }
  step.step = ++updates_;
  const at::Tensor& weights = parameters_.flat_parameters();
  if (!weights.is_cpu()) {
    return device::adamw_update(step, parameters_.flat_gradients(), weights, mean_, square_,
                                parameters_.flat_copies());
  }
  kernels::adamw_update(step, parameters_.flat_gradients().data_ptr<float>(), weights.numel(),
                        weights.data_ptr<float>(), mean_.data_ptr<float>(),
                        square_.data_ptr<float>(), threads_);
}

Work Optimizer::work() const {
  const at::Tensor &weights = parameters_.flat_parameters(),
                   &gradients = parameters_.flat_gradients();
  return parallel::moving(gradients, gradients, weights, weights, mean_, mean_, square_, square_,
                          parameters_.flat_copies());
}

FlatState Optimizer::checkpoint_state() const {
  FlatState state(parameters_);
  state.add("exp_avg.", mean_);
  state.add("exp_avg_sq.", square_);
  return state;
}

}  // namespace sprocket::runtime

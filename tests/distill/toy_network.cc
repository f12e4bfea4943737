#include "tests/distill/toy_network.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>

#include "base/philox.h"
#include "runtime/train/optimizer.h"

namespace sprocket::testing {
namespace {

constexpr int64_t kWaves = 6, kInputs = 2 + 1 + 2 * kWaves, kWidth = 128;

std::vector<models::ParameterSpec> specs() {
  using enum models::InitialRule;
  return {{"0.weight", {kWidth, kInputs}, kXavierUniform}, {"0.bias", {kWidth}},
          {"1.weight", {kWidth, kWidth}, kXavierUniform},  {"1.bias", {kWidth}},
          {"2.weight", {kWidth, kWidth}, kXavierUniform},  {"2.bias", {kWidth}},
          {"3.weight", {2, kWidth}, kXavierUniform},       {"3.bias", {2}}};
}

}  // namespace

ToyNetwork::ToyNetwork(uint64_t seed) : parameters_(specs()) { parameters_.initialise(seed); }

at::Tensor ToyNetwork::predict(const at::Tensor& x, std::span<const double> timesteps,
                               const at::Tensor&) {
  const at::Tensor sigma =
      at::tensor(at::ArrayRef<double>(timesteps.data(), timesteps.size()), at::kDouble)
          .view({-1, 1})
          .div(1000)
          .to(at::kFloat);
  const at::Tensor angles = sigma * at::arange(1, kWaves + 1).to(at::kFloat) * (M_PI / 2);
  at::Tensor h = at::cat({x, sigma, at::sin(angles), at::cos(angles)}, 1);
  for (const char* layer : {"0", "1", "2", "3"}) {
    h = at::linear(h, parameters_.tensor(std::string(layer) + ".weight"),
                   parameters_.tensor(std::string(layer) + ".bias"));
    if (layer[0] != '3') h = at::silu(h);
  }
  return h;
}

void ToyNetwork::copy_from(const ToyNetwork& other) {
  parameters_.flat_parameters().copy_(other.parameters_.flat_parameters());
}

void imitate(ToyNetwork& network, runtime::Denoiser& teacher, const at::Tensor& clean, int steps) {
  config::Optimizer options;
  options.set_weight_decay(0);
  runtime::Optimizer optimizer(options, network.parameters(), 1);
  constexpr int64_t kBatch = 256;
  for (int step = 0; step < steps; ++step) {
    const at::Tensor noise = at::empty({kBatch, 2}, at::kFloat);
    const RandomStream stream(1, step, 0, RandomPurpose::kTest);
    stream.normal({noise.data_ptr<float>(), static_cast<size_t>(2 * kBatch)});
    std::vector<double> timesteps;
    std::vector<runtime::Level> levels;
    const RandomStream times(1, step, 1, RandomPurpose::kTest);
    for (int64_t i = 0; i < kBatch; ++i) {
      timesteps.push_back(1 + 998 * times.uniform(i));
      levels.push_back(runtime::Diffusion::flow().level(timesteps.back()));
    }
    const at::Tensor x = runtime::noised(
        clean.narrow(0, (step * kBatch) % (clean.size(0) - kBatch), kBatch), noise, levels);
    network.parameters().zero_gradients();
    const at::Tensor target = teacher.predict(x, timesteps, {});
    (network.predict(x, timesteps, {}) - target).square().mean().backward();
    const double rate = 3e-3 * (1 - 0.9 * step / steps);
    optimizer.update(rate, optimizer.gradient_norm());
  }
}

}  // namespace sprocket::testing

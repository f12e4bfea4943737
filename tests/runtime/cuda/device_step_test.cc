// A training step on CUDA tensors: the same loss, output, gradients and weights as on the
// processor. LibTorch's operators are computed by the host (host_operators.h); the project's
// kernels run as a device runs them.
#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include "configs/load.h"
#include "parallel/comm/nccl_backend.h"
#include "parallel/comm/thread_backend.h"
#include "parallel/device/tensor_device.h"
#include "runtime/parity/parity_samples.h"
#include "runtime/train/optimizer.h"
#include "tests/runtime/cuda/host_operators.h"

namespace sprocket::comm {

// NCCL of a job of one rank, which sends nothing: instead of the library's, which needs a device.
std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host,
                                                     const NcclOptions&,
                                                     const CommunicatorOptions&) {
  return host;
}

}  // namespace sprocket::comm

namespace sprocket::runtime {
namespace {

// 3 x 6 x 8 tokens in blocks of 64 and less; 2 heads of 64 channels.
config::Job job(const std::string& attention, const std::string& precision) {
  return config::parse_job(
             "model { dim: 128 heads: 2 layers: 1 ffn_dim: 128 latent_channels: 4 text_dim: 8 "
             "text_tokens: 6 frequency_dim: 16 } "
             "data { latent { t: 3 h: 12 w: 16 } } "
             "training { steps: 20 global_batch: 1 micro_batch: 1 seed: 3 "
             "optimizer { learning_rate: 2e-3 warmup_steps: 1 } } "
             "attention { cube { t: 4 h: 4 w: 4 } " +
                 attention + " } compute { threads: 1 precision: " + precision + " }",
             "step")
      .job;
}

struct Step {
  double loss = 0, norm = 0;
  at::Tensor velocity, gradients, weights;
};

// Two of them: the second one starts from the weights that the first one made.
Step steps(const config::Job& job, const at::Device& device) {
  auto world = comm::make_thread_world(1, {});
  const parallel::Mesh mesh(std::move(world.front()), {}, device);
  Network network(job, mesh, 1, Network::Start::kFresh);
  // Gates and the head start at 0, and so would most gradients.
  at::Tensor weights = network.parameters().flat_parameters();
  const at::Tensor noise = at::sin(at::arange(weights.numel(), at::kFloat) * 0.7).mul_(0.02);
  weights.add_(noise.to(device));
  Optimizer optimizer(job.training().optimizer(), network.parameters(), 1);
  const ParitySamples samples = load_parity_samples(job);
  Step step;
  for (int i = 0; i < 2; ++i) {
    network.parameters().zero_gradients();
    const PassOutcome outcome =
        forward_backward(network, samples.replicas.front(), i, samples.samples());
    step.loss = outcome.loss;
    step.velocity = outcome.velocity_BLF.cpu().to(at::kDouble);
    step.gradients = network.parameters().flat_gradients().cpu().to(at::kDouble);
    step.norm = optimizer.gradient_norm();
    optimizer.update(1e-3, step.norm);
  }
  step.weights = weights.cpu().clone();
  return step;
}

double error(const at::Tensor& found, const at::Tensor& exact) {
  return ((found - exact).norm() / exact.norm()).item<double>();
}

class DeviceStep : public ::testing::TestWithParam<const char*> {};

TEST_P(DeviceStep, IsAsExactAsTheProcessorsInTheSamePrecision) {
  testing::use_host_operators();
  const Step exact = steps(job(GetParam(), "FP32"), at::kCPU);
  const Step host = steps(job(GetParam(), "BF16"), at::kCPU);
  const parallel::TensorDevice device = parallel::TensorDevice::hold(0);
  const Step found = steps(job(GetParam(), "BF16"), device.device());
  EXPECT_LE(std::abs(found.loss - exact.loss),
            2 * std::max(std::abs(host.loss - exact.loss), 0x1p-8 * exact.loss));
  EXPECT_LE(error(found.velocity, exact.velocity), 2 * error(host.velocity, exact.velocity));
  EXPECT_LE(error(found.gradients, exact.gradients), 2 * error(host.gradients, exact.gradients));
  EXPECT_NEAR(found.norm, found.gradients.norm().item<double>(), 1e-6 * found.norm);

  const Step again = steps(job(GetParam(), "BF16"), device.device());
  EXPECT_EQ(again.loss, found.loss);
  EXPECT_TRUE(again.gradients.equal(found.gradients));
  EXPECT_TRUE(again.weights.equal(found.weights));
}

INSTANTIATE_TEST_SUITE_P(Methods, DeviceStep,
                         ::testing::Values("method: DENSE",
                                           "method: VSA vsa { sparsity { start: 0.5 } }",
                                           "method: SLIDING_TILE"));

}  // namespace
}  // namespace sprocket::runtime

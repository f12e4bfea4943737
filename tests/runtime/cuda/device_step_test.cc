// A training step on CUDA tensors: the same loss, output, gradients and weights as on the
// processor, on one rank and on two. LibTorch's operators are computed by the host
// (host_operators.h), messages travel through host memory (staged_backend.h); the project's kernels
// run as a device runs them.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include "configs/load.h"
#include "parallel/comm/thread_backend.h"
#include "parallel/device/tensor_device.h"
#include "runtime/parity/parity_samples.h"
#include "runtime/plan/job_specs.h"
#include "runtime/recording/step_collector.h"
#include "runtime/train/optimizer.h"
#include "tests/runtime/cuda/dense_operators.h"
#include "tests/runtime/cuda/host_operators.h"
#include "tests/runtime/thread_ranks.h"

namespace sprocket::runtime {
namespace {

// 3 x 6 x 8 tokens in blocks of 64 and less; 2 heads of 64 channels.
config::Job job(const std::string& attention, const std::string& precision,
                const std::string& parallel = "", int world = 1) {
  return config::parse_job(
             "model { dim: 128 heads: 2 layers: 1 ffn_dim: 128 latent_channels: 4 text_dim: 8 "
             "text_tokens: 6 frequency_dim: 16 } "
             "data { latent { t: 3 h: 12 w: 16 } } "
             "training { steps: 20 global_batch: 1 micro_batch: 1 seed: 3 "
             "optimizer { learning_rate: 2e-3 warmup_steps: 1 } } "
             "attention { cube { t: 4 h: 4 w: 4 } " +
                 attention + " } parallel { " + parallel +
                 " } compute { threads: 1 precision: " + precision + " }",
             "step", {}, {.world = world})
      .job;
}

struct Step {
  double loss = 0, norm = 0;  // loss: of the rank's tokens
  at::Tensor velocity, gradients, weights;
  profile::StepParts times;  // of the second step; without compute when the world has no timeline
};

// Two of them: the second one starts from the weights that the first one made.
Step steps(const config::Job& job, std::unique_ptr<comm::Communicator> world,
           const at::Device& device) {
  const parallel::Mesh mesh(std::move(world), mesh_shape(job), device);
  Network network(job, mesh, 1, Network::Start::kFresh);
  // Gates and the head start at 0, and so would most gradients.
  at::Tensor weights = network.parameters().flat_parameters();
  const at::Tensor noise = at::sin(at::arange(weights.numel(), at::kFloat) * 0.7).mul_(0.02);
  weights.add_(noise.to(device));
  Optimizer optimizer(job.training().optimizer(), network.parameters(), 1);
  const ParitySamples samples = load_parity_samples(job);
  StepCollector collector(mesh, job.model().layers());
  Step step;
  for (int i = 0; i < 2; ++i) {
    collector.begin_step();
    network.parameters().zero_gradients();
    const PassOutcome outcome =
        forward_backward(network, samples.replicas.front(), i, samples.samples());
    step.loss = outcome.loss;
    step.velocity = outcome.velocity_BLF.cpu().to(at::kDouble);
    sum_gradients(network.parameters(), mesh.tensors().world());
    step.gradients = network.parameters().flat_gradients().cpu().to(at::kDouble);
    step.norm = optimizer.gradient_norm();
    optimizer.update(1e-3, step.norm);
    step.times = collector.end_step();
  }
  step.weights = weights.cpu().clone();
  return step;
}

Step on_processor(const config::Job& job) {
  return steps(job, std::move(comm::make_thread_world(1, {}).front()), at::kCPU);
}

Step on_device(const config::Job& job) {
  const parallel::TensorDevice device = parallel::TensorDevice::hold(0);
  return steps(job, std::move(comm::make_thread_world(1, {}).front()), device.device());
}

double error(const at::Tensor& found, const at::Tensor& exact) {
  return ((found - exact).norm() / exact.norm()).item<double>();
}

void expect_loss(double found, double host, double exact) {
  EXPECT_LE(std::abs(found - exact), 2 * std::max(std::abs(host - exact), 0x1p-8 * exact));
}

class WithHostOperators : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::use_host_operators();
    testing::reset_dense_calls();
  }
};

class DeviceStep : public WithHostOperators, public ::testing::WithParamInterface<const char*> {};

TEST_P(DeviceStep, IsAsExactAsTheProcessorsInTheSamePrecision) {
  const Step exact = on_processor(job(GetParam(), "FP32"));
  const Step host = on_processor(job(GetParam(), "BF16"));
  const Step found = on_device(job(GetParam(), "BF16"));
  expect_loss(found.loss, host.loss, exact.loss);
  EXPECT_LE(error(found.velocity, exact.velocity), 2 * error(host.velocity, exact.velocity));
  EXPECT_LE(error(found.gradients, exact.gradients), 2 * error(host.gradients, exact.gradients));
  EXPECT_NEAR(found.norm, found.gradients.norm().item<double>(), 1e-6 * found.norm);

  const Step again = on_device(job(GetParam(), "BF16"));
  EXPECT_EQ(again.loss, found.loss);
  EXPECT_TRUE(again.gradients.equal(found.gradients));
  EXPECT_TRUE(again.weights.equal(found.weights));
}

constexpr const char* kDense = "method: DENSE";
constexpr const char* kVsa = "method: VSA vsa { sparsity { start: 0.5 } }";
constexpr const char* kSubBlocks =
    "method: VSA vsa { sparsity { start: 0.5 } score: SUBBLOCK query_parts: 2 key_parts: 4 }";
constexpr const char* kBsa =
    "method: BSA bsa { rule: MASS mass: 0.6 min_blocks: 1 redundancy_threshold: 0.2 }";
constexpr const char* kPsa =
    "method: PSA psa { samples: 8 threshold: [0.4, 0.5, 0.6, 0.8] similarity_cap: true }";
constexpr const char* kAsa =
    "method: ASA asa { samples: 16 mass: 0.5 max_keep: 0.6 global_width: 8 exclude_selected: true "
    "}";
constexpr const char* kBudget =
    "method: VSA vsa { sparsity { start: 0.5 } } domains: 2 max_coverage { start: 0.4 } "
    "budget_head_group: 1";

INSTANTIATE_TEST_SUITE_P(Methods, DeviceStep,
                         ::testing::Values(kDense, kVsa, kSubBlocks, kBsa, kPsa, kAsa, kBudget,
                                           "method: SLIDING_TILE"));

// Two steps of one layer: its cross-attention, and its self-attention where that is dense.
TEST_F(WithHostOperators, OnlyDenseAttentionTakesTheDensePath) {
  on_device(job(kDense, "BF16"));
  EXPECT_EQ(testing::dense_calls().forward, 2 * 2);
  EXPECT_EQ(testing::dense_calls().backward, 2 * 2);
  testing::reset_dense_calls();
  on_device(job(kVsa, "BF16"));
  EXPECT_EQ(testing::dense_calls().forward, 2 * 1);
  EXPECT_EQ(testing::dense_calls().backward, 2 * 1);
}

class DeviceRanks : public WithHostOperators,
                    public ::testing::WithParamInterface<std::tuple<const char*, const char*>> {};

TEST_P(DeviceRanks, TwoEqualOne) {
  const char* const method = std::get<0>(GetParam());
  const char* const parallel = std::get<1>(GetParam());
  const Step exact = on_processor(job(method, "FP32"));
  const Step host = on_processor(job(method, "BF16"));
  std::vector<Step> found(2);
  testing::run_ranks(2, [&](std::unique_ptr<comm::Communicator> world) {
    const int rank = world->rank();
    const parallel::TensorDevice device = parallel::TensorDevice::hold(0);
    found[rank] = steps(job(method, "BF16", parallel, 2), std::move(world), device.device());
  });
  expect_loss(found[0].loss + found[1].loss, host.loss, exact.loss);
  EXPECT_LE(error(found[0].gradients, exact.gradients), 2 * error(host.gradients, exact.gradients));
  EXPECT_TRUE(found[0].gradients.equal(found[1].gradients));
  EXPECT_TRUE(found[0].weights.equal(found[1].weights));
  EXPECT_EQ(found[0].norm, found[1].norm);
  for (const Step& step : found) {
    EXPECT_GT(step.times.compute_ns, 0);
    EXPECT_LE(step.times.compute_ns, step.times.wall_ns);
    EXPECT_GT(step.times.communication_ns, 0);
    EXPECT_EQ(step.times.exposed_ns + step.times.overlapped_ns, step.times.communication_ns);
  }
}

INSTANTIATE_TEST_SUITE_P(Strategies, DeviceRanks,
                         ::testing::Combine(::testing::Values(kVsa, kDense),
                                            ::testing::Values("ulysses: 2",
                                                              "outer: 2 strategy: RING",
                                                              "outer: 2 strategy: ALL_GATHER",
                                                              "outer: 2 strategy: SELECTED",
                                                              "outer: 2 remote_kv: FETCH_AGAIN")));

INSTANTIATE_TEST_SUITE_P(
    Methods, DeviceRanks,
    ::testing::Combine(::testing::Values(kSubBlocks, kBsa, kPsa, kAsa, kBudget),
                       ::testing::Values("ulysses: 2", "outer: 2 strategy: SELECTED")));

// Two ranks, two steps: the cross-attention, and a pass for each shard of keys.
TEST_F(WithHostOperators, EveryStepOfADenseRingTakesTheDensePath) {
  testing::run_ranks(2, [&](std::unique_ptr<comm::Communicator> world) {
    const parallel::TensorDevice device = parallel::TensorDevice::hold(0);
    steps(job(kDense, "BF16", "outer: 2 strategy: RING", 2), std::move(world), device.device());
  });
  EXPECT_EQ(testing::dense_calls().forward, 2 * 2 * 3);
  EXPECT_EQ(testing::dense_calls().backward, 2 * 2 * 3);
}

// bf16 copies of the weights: nobody who changes the weights may leave them behind.
class WeightCopies : public WithHostOperators {
 protected:
  static at::Tensor velocity(Network& network, const ParitySamples& samples) {
    network.parameters().zero_gradients();
    return forward_backward(network, samples.replicas.front(), 0, samples.samples())
        .velocity_BLF.cpu();
  }

  static bool are_current(const models::ParameterStore& parameters) {
    return parameters.flat_copies().cpu().equal(
        parameters.flat_parameters().cpu().to(at::kBFloat16));
  }

  const config::Job job_ = job(kDense, "BF16");
  const ParitySamples samples_ = load_parity_samples(job_);
};

TEST_F(WeightCopies, FollowEveryChangeOfTheWeights) {
  const parallel::TensorDevice device = parallel::TensorDevice::hold(0);
  const parallel::Mesh mesh(std::move(comm::make_thread_world(1, {}).front()), mesh_shape(job_),
                            device.device());
  Network network(job_, mesh, 1, Network::Start::kFresh);
  models::ParameterStore& parameters = network.parameters();
  const at::Tensor started = velocity(network, samples_);
  EXPECT_TRUE(are_current(parameters)) << "the weights' start";

  Optimizer optimizer(job_.training().optimizer(), parameters, 1);
  optimizer.update(1e-2, optimizer.gradient_norm());
  EXPECT_TRUE(are_current(parameters)) << "an update writes both, before any forward";
  const at::Tensor updated = velocity(network, samples_);
  EXPECT_FALSE(updated.equal(started));

  parameters.flat_parameters().mul_(1.5);
  velocity(network, samples_);
  EXPECT_TRUE(are_current(parameters)) << "a write to all";

  parameters.tensor("blocks.0.ffn.0.weight").detach().fill_(0.25);
  velocity(network, samples_);
  EXPECT_TRUE(are_current(parameters)) << "a write to one";
}

TEST_F(WeightCopies, FollowACheckpoint) {
  const parallel::TensorDevice device = parallel::TensorDevice::hold(0);
  const parallel::Mesh mesh(std::move(comm::make_thread_world(1, {}).front()), mesh_shape(job_),
                            device.device());
  Network trained(job_, mesh, 1, Network::Start::kFresh);
  velocity(trained, samples_);
  Optimizer optimizer(job_.training().optimizer(), trained.parameters(), 1);
  optimizer.update(1e-2, optimizer.gradient_norm());

  // Has run with other weights before.
  Network resumed(job_, mesh, 1, Network::Start::kFresh);
  velocity(resumed, samples_);
  const FlatState from = trained.checkpoint_state(), to = resumed.checkpoint_state();
  const std::vector<CheckpointTensor> saved = from.tensors(), loaded = to.tensors();
  for (size_t i = 0; i < saved.size(); ++i) {
    std::ranges::copy(saved[i].values, loaded[i].values.begin());
  }
  to.write_back();
  EXPECT_TRUE(velocity(resumed, samples_).equal(velocity(trained, samples_)));
  EXPECT_TRUE(are_current(resumed.parameters()));
}

TEST_F(WeightCopies, ThereAreNoneOnTheProcessor) {
  const parallel::Mesh mesh(std::move(comm::make_thread_world(1, {}).front()), mesh_shape(job_));
  Network network(job_, mesh, 1, Network::Start::kFresh);
  EXPECT_FALSE(network.parameters().flat_copies().defined());
}

}  // namespace
}  // namespace sprocket::runtime

// A step of distillation on CUDA tensors: losses and gradients of both phases as exact as on the
// processor in the same precision, and the same bits with the teacher's weights in the host's
// memory. Operators and messages as in device_step_test.cc.
#include <map>

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include "configs/load.h"
#include "parallel/comm/thread_backend.h"
#include "parallel/device/tensor_device.h"
#include "runtime/distill/role_network.h"
#include "runtime/plan/job_specs.h"
#include "runtime/train/job_diffusion.h"
#include "tests/runtime/cuda/host_operators.h"

namespace sprocket::runtime {
namespace {

using config::NetworkRole;

constexpr data::LatentShape kShape{4, 3, 12, 16};

config::Job job(const std::string& compute, const std::string& teacher = "") {
  config::LoadOptions options;
  options.purpose = config::Purpose::kParity;
  options.world = 1;
  return config::parse_job(
             "model { dim: 128 heads: 2 layers: 1 ffn_dim: 128 latent_channels: 4 text_dim: 8 "
             "text_tokens: 6 frequency_dim: 16 } "
             "data { latent { t: 3 h: 12 w: 16 } } training { global_batch: 1 } "
             "attention { method: VSA cube { t: 4 h: 4 w: 4 } vsa { sparsity { start: 0.5 } } } "
             "distillation { recipe: TDM guidance: 2 teacher { " +
                 teacher + " } } compute { threads: 1 " + compute + " }",
             "step", {}, options)
      .job;
}

struct Phases {
  std::vector<double> losses;
  std::vector<at::Tensor> gradients;
};

Phases phases_of(const config::Job& job, const at::Device& device) {
  const parallel::Mesh mesh(std::move(comm::make_thread_world(1, {}).front()), mesh_shape(job),
                            device);
  FrozenWeights frozen(job);
  RoleSetup setup;
  setup.memory = int64_t{1} << 40;
  setup.shape = kShape;
  setup.frozen = &frozen;
  std::map<NetworkRole, std::unique_ptr<RoleNetwork>> roles;
  // Gates and the head start at 0, and so would most gradients. The teacher's weights may be
  // elsewhere once its network is made.
  const auto fill = [&](const models::ParameterStore& store, double scale) {
    at::Tensor weights = store.flat_parameters();
    weights.add_((at::sin(at::arange(weights.numel(), at::kFloat) * 0.7) * scale).to(device));
  };
  fill(*frozen.of(config::role_job(job, NetworkRole::kTeacher), mesh), 0.03);
  for (const auto role : {NetworkRole::kStudent, NetworkRole::kTeacher, NetworkRole::kFakeScore}) {
    roles[role] = std::make_unique<RoleNetwork>(job, role, mesh, setup);
    roles[role]->denoiser().begin_step(0);
  }
  fill(roles[NetworkRole::kStudent]->network().parameters(), 0.02);
  fill(roles[NetworkRole::kFakeScore]->network().parameters(), 0.025);
  const Networks networks{roles[NetworkRole::kStudent]->denoiser(),
                          roles[NetworkRole::kTeacher]->denoiser(),
                          roles[NetworkRole::kFakeScore]->denoiser(), job_diffusion(job)};
  const auto recipe = make_recipe(job);
  const auto specs = recipe->phases(0);
  Scene scene(5, 0, {0}, {kShape.c, kShape.t, kShape.h, kShape.w}, at::kFloat,
              at::full({1, 6, 8}, 0.3), at::zeros({1, 6, 8}));
  Phases phases;
  for (size_t phase = 0; phase < specs.size(); ++phase) {
    RoleNetwork& trained = *roles[specs[phase].trained];
    trained.network().parameters().zero_gradients();
    const at::Tensor loss = recipe->loss(phase, networks, scene);
    phases.losses.push_back(loss.item<double>());
    loss.backward();
    trained.denoiser().end_backward();
    phases.gradients.push_back(
        trained.network().parameters().flat_gradients().cpu().to(at::kDouble));
  }
  const auto& teacher = roles[NetworkRole::kTeacher];
  const at::Tensor& weights = teacher->network().parameters().flat_parameters();
  EXPECT_EQ(weights.storage().nbytes(), teacher->offloaded() ? 0 : weights.nbytes());
  return phases;
}

double error(const at::Tensor& found, const at::Tensor& exact) {
  return ((found - exact).norm() / exact.norm()).item<double>();
}

TEST(DeviceDistillation, IsAsExactAsTheProcessorsInTheSamePrecision) {
  testing::use_host_operators();
  const Phases exact = phases_of(job("precision: FP32"), at::kCPU);
  const Phases host = phases_of(job("precision: BF16"), at::kCPU);
  const parallel::TensorDevice device = parallel::TensorDevice::hold(0);
  const std::string cuda = "precision: BF16 device: CUDA";
  const Phases found = phases_of(job(cuda), device.device());
  const Phases offloaded = phases_of(job(cuda, "offload: true"), device.device());
  ASSERT_EQ(found.losses.size(), 2u);
  for (size_t phase = 0; phase < 2; ++phase) {
    const double loss = exact.losses[phase];
    EXPECT_LE(std::abs(found.losses[phase] - loss),
              2 * std::max(std::abs(host.losses[phase] - loss), 0x1p-8 * loss));
    EXPECT_GT(exact.gradients[phase].norm().item<double>(), 1e-6);
    EXPECT_LE(error(found.gradients[phase], exact.gradients[phase]),
              2 * error(host.gradients[phase], exact.gradients[phase]));
    EXPECT_EQ(offloaded.losses[phase], found.losses[phase]);
    EXPECT_TRUE(offloaded.gradients[phase].equal(found.gradients[phase]));
  }
}

}  // namespace
}  // namespace sprocket::runtime

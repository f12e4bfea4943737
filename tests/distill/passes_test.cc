// The planner's evaluations of a step (distillation_passes) against those that recipes make.
#include <gtest/gtest.h>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "configs/load.h"
#include "runtime/distill/recipe.h"
#include "runtime/plan/distillation_passes.h"
#include "runtime/train/job_diffusion.h"

namespace sprocket::runtime {
namespace {

class CountingNetwork : public Denoiser {
 public:
  at::Tensor predict(const at::Tensor& x, std::span<const double>, const at::Tensor&) override {
    (at::GradMode::is_enabled() ? with_graph : plain) += static_cast<double>(x.size(0));
    return weight_ * x;
  }
  double plain = 0, with_graph = 0;

 private:
  at::Tensor weight_ = at::zeros({1}).requires_grad_();
};

class Passes : public ::testing::TestWithParam<const char*> {};

TEST_P(Passes, AreThoseOfTheRecipe) {
  constexpr int64_t kSteps = 3000, kBatch = 2;
  config::LoadOptions options;
  options.purpose = config::Purpose::kParity;
  const config::Job job =
      config::parse_job(
          std::string(
              "data { latent { t: 3 h: 8 w: 8 } } training { global_batch: 2 micro_batch: 2 }\n"
              "distillation { teacher { weights: 'T' } ") +
              GetParam() + " }",
          "job.txtpb", {}, options)
          .job;
  const auto recipe = make_recipe(job);
  CountingNetwork student, teacher, fake_score;
  const Networks networks{student, teacher, fake_score, job_diffusion(job)};
  double student_updates = 0;
  for (int64_t step = 0; step < kSteps; ++step) {
    Scene scene(5, step, {0, 1}, {3}, at::kFloat, at::zeros({kBatch}), at::zeros({kBatch}));
    const auto phases = recipe->phases(step);
    for (size_t phase = 0; phase < phases.size(); ++phase) {
      const at::AutoGradMode with_graph(true);
      recipe->loss(phase, networks, scene);
      student_updates += phases[phase].trained == config::NetworkRole::kStudent ? 1 : 0;
    }
  }
  // A rollout is of 0 to 3 evaluations: four standard errors of the mean of so many.
  constexpr double kTolerance = 4 * 1.5 / 54;
  const auto expect = [&](const CountingNetwork& network, config::NetworkRole role) {
    const NetworkPasses expected = distillation_passes(job, role);
    EXPECT_NEAR(network.plain / (kSteps * kBatch), expected.plain, kTolerance)
        << config::name_of(role);
    EXPECT_NEAR(network.with_graph / (kSteps * kBatch), expected.with_graph, 1e-9)
        << config::name_of(role);
  };
  expect(student, config::NetworkRole::kStudent);
  expect(teacher, config::NetworkRole::kTeacher);
  expect(fake_score, config::NetworkRole::kFakeScore);
  EXPECT_NEAR(student_updates / kSteps,
              distillation_passes(job, config::NetworkRole::kStudent).updates, 1e-9);
}

INSTANTIATE_TEST_SUITE_P(Recipes, Passes,
                         ::testing::Values("recipe: TDM tdm { segments: 4 }",
                                           "recipe: TDM guidance: 1 tdm { segments: 2 "
                                           "teacher_weight: 0.5 variant: ORIGINAL }",
                                           "recipe: DMD2 dmd2 { student_interval: 5 }",
                                           "recipe: DMD2 guidance: 1 dmd2 { timestep: [1000, 500] "
                                           "student_interval: 3 }"));

}  // namespace
}  // namespace sprocket::runtime

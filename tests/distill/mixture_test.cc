// Students of few steps reach a distribution whose scores are known in closed form; a planted fault
// keeps them from it.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/where.h>

#include "runtime/distill/distiller.h"
#include "tests/comm/thread_ranks.h"
#include "tests/distill/gaussian_mixture.h"
#include "tests/distill/toy_network.h"

namespace sprocket::runtime {
namespace {

using testing::energy_distance;
using testing::GaussianMixture;
using testing::MixtureTeacher;
using testing::ToyNetwork;

constexpr int64_t kBatch = 128, kSamples = 2000;
constexpr double kEta = 0.9;

const GaussianMixture kTarget({{{-1.5, 0}}, {{1.2, 1.0}}, {{0.8, -1.4}}}, 0.3);

struct Toy {
  const char* recipe;
  int steps;    // of the student
  int updates;  // steps of the job
  double rate;  // the student's
};

config::Distillation distillation_of(const Toy& toy) {
  config::Distillation options;
  if (std::string(toy.recipe) == "TDM") {
    options.set_recipe(config::Distillation::TDM);
    options.mutable_tdm()->set_segments(toy.steps);
    options.mutable_tdm()->set_skip_above(0);
    // The whole distance counts, not its direction alone.
    options.mutable_tdm()->set_huber_elements(1e-6);
  } else {
    options.set_recipe(config::Distillation::DMD2);
    for (int i = 0; i < toy.steps; ++i) {
      options.mutable_dmd2()->add_timestep(1000.0 - 1000.0 * i / toy.steps);
    }
    options.mutable_dmd2()->set_student_interval(2);
  }
  options.set_guidance(1);
  return options;
}

// What a student of these steps makes of noise. Of DMD2 every sample ends at one of the steps, as
// in its training: the fake score sees the samples of all steps together, so that their mixture is
// what is led to the target, and no step's own (docs/distillation.md).
at::Tensor generate(Denoiser& student, const Toy& toy, int64_t count) {
  const at::NoGradGuard no_graph;
  const Diffusion diffusion = Diffusion::flow();
  std::vector<int64_t> numbers(count);
  for (int64_t i = 0; i < count; ++i) numbers[i] = i;
  const Scene scene(99, 0, numbers, {2}, at::kFloat, {}, {});
  const bool tdm = std::string(toy.recipe) == "TDM";
  at::Tensor x = scene.normal(0), ends = x;
  const at::Tensor last = at::arange(count).remainder(toy.steps).unsqueeze(1);
  for (int i = 0; i < toy.steps; ++i) {
    const double at = 1000.0 - 1000.0 * i / toy.steps - (tdm ? 1 : 0);
    const double next = 1000.0 - 1000.0 * (i + 1) / toy.steps - (tdm ? 1 : 0);
    const std::vector<double> here(count, at);
    const auto levels = levels_of(diffusion, here);
    const at::Tensor v = student.predict(x, here, {});
    const at::Tensor x0 = diffusion.x0(x, v, levels);
    ends = tdm ? x0 : at::where(last.eq(i), x0, ends);
    if (i + 1 == toy.steps) break;
    const at::Tensor z = scene.normal(i + 1);
    const at::Tensor noise =
        tdm ? kEta * diffusion.eps(x, v, levels) + std::sqrt(1 - kEta * kEta) * z : z;
    x = noised(x0, noise, levels_of(diffusion, std::vector<double>(count, next)));
  }
  return ends;
}

struct Distances {
  double start = 0, end = 0;
};

enum class Plant { kNothing, kScoresSwapped };

// One rank.
Distances distill(const Toy& toy, Plant plant = Plant::kNothing) {
  Distances distances;
  // Thousands of tiny products: threads would wait for each other at every one.
  at::set_num_threads(1);
  comm::testing::run_ranks(1, [&](comm::Communicator& world) {
    MixtureTeacher teacher(kTarget);
    static const auto* const start = [&] {
      auto* const network = new ToyNetwork(7);
      testing::imitate(*network, teacher, kTarget.sample(20000, 3), 2000);
      return network;
    }();
    ToyNetwork student(1), fake(2);
    student.copy_from(*start);
    fake.copy_from(*start);
    config::Job job;
    *job.mutable_distillation() = distillation_of(toy);
    job.mutable_flow()->set_shift(1);
    config::Optimizer student_options, fake_options;
    student_options.set_beta1(0);
    student_options.set_weight_decay(0);
    student_options.set_learning_rate(toy.rate);
    student_options.set_decay(config::Optimizer::COSINE);
    fake_options = student_options;
    fake_options.set_learning_rate(2e-3);
    Optimizer student_optimizer(student_options, student.parameters(), 1),
        fake_optimizer(fake_options, fake.parameters(), 1);
    Denoiser& real_score = plant == Plant::kScoresSwapped ? static_cast<Denoiser&>(fake) : teacher;
    Denoiser& fake_score = plant == Plant::kScoresSwapped ? static_cast<Denoiser&>(teacher) : fake;
    const at::Tensor target = kTarget.sample(kSamples, 11);
    distances.start = energy_distance(generate(student, toy, kSamples), target);
    // The score of the student's samples is learnt either way; what a fault changes is whose score
    // the student takes for the teacher's.
    struct Swapping : Recipe {
      std::unique_ptr<Recipe> inner;
      Networks swapped;
      Swapping(std::unique_ptr<Recipe> recipe, const Networks& networks)
          : inner(std::move(recipe)), swapped(networks) {}
      std::vector<PhaseSpec> phases(int64_t step) const override { return inner->phases(step); }
      at::Tensor loss(size_t phase, const Networks& networks, Scene& scene) const override {
        return inner->loss(phase, phase == 0 ? networks : swapped, scene);
      }
    };
    const Networks right{student, teacher, fake, Diffusion::flow()};
    const Networks used{student, real_score, fake_score, Diffusion::flow()};
    Distiller distiller(right, std::make_unique<Swapping>(make_recipe(job), used),
                        {student.parameters(), student_optimizer, student_options, nullptr},
                        {fake.parameters(), fake_optimizer, fake_options, nullptr}, world, world,
                        {toy.updates, kBatch, nullptr});
    std::vector<int64_t> samples(kBatch);
    for (int64_t i = 0; i < kBatch; ++i) samples[i] = i;
    for (int step = 0; step < toy.updates; ++step) {
      std::vector<Scene> scenes;
      scenes.emplace_back(5, step, samples, std::vector<int64_t>{2}, at::kFloat, at::Tensor(),
                          at::Tensor());
      for (const PhaseOutcome& outcome : distiller.step(step, scenes)) {
        ASSERT_TRUE(outcome.updated()) << outcome.name << " at step " << step;
      }
    }
    distances.end = energy_distance(generate(student, toy, kSamples), target);
  });
  return distances;
}

class Mixture : public ::testing::TestWithParam<Toy> {};

// Two draws of the target itself are .002 apart (2,000 samples each).
TEST_P(Mixture, StudentReachesTheTarget) {
  const Distances distances = distill(GetParam());
  RecordProperty("start", std::to_string(distances.start));
  RecordProperty("end", std::to_string(distances.end));
  EXPECT_GT(distances.start, 0.025);
  EXPECT_LT(distances.end, 0.0125);
}

INSTANTIATE_TEST_SUITE_P(Recipes, Mixture,
                         ::testing::Values(Toy{"TDM", 1, 800, 5e-4}, Toy{"TDM", 2, 800, 5e-4},
                                           Toy{"TDM", 4, 800, 5e-4}, Toy{"DMD2", 1, 1600, 1e-3},
                                           Toy{"DMD2", 2, 1600, 1e-3}, Toy{"DMD2", 4, 1600, 1e-3}),
                         [](const auto& toy) {
                           return std::string(toy.param.recipe) + std::to_string(toy.param.steps);
                         });

TEST(MixtureFault, SwappedScoresLeadAway) {
  for (const Toy toy : {Toy{"TDM", 2, 100, 5e-4}, Toy{"DMD2", 2, 100, 5e-4}}) {
    const Distances distances = distill(toy, Plant::kScoresSwapped);
    EXPECT_GT(distances.end, distances.start) << toy.recipe;
  }
}

}  // namespace
}  // namespace sprocket::runtime

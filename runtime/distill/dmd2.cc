#include "runtime/distill/dmd2.h"

#include <algorithm>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>

#include "runtime/train/flow.h"

namespace sprocket::runtime {
namespace {

// Draws of a step: 0 the noise, j the one before timestep j, then those of the two phases.
constexpr int kFakeDraws = 200, kStudentDraws = 210;
enum Draw { kLast, kLevel, kNoise };

}  // namespace

struct Dmd2::Last {
  std::vector<double> timesteps;
  std::vector<Level> levels;
  at::Tensor x;
};

Dmd2::Dmd2(const config::Dmd2& options, double guidance, double shift)
    : options_(options), guidance_(guidance), shift_(shift) {
  for (const double timestep : options.timestep()) {
    timesteps_.push_back(options.shift_timesteps()
                             ? kTimesteps * shift_level(timestep / kTimesteps, shift)
                             : timestep);
  }
}

std::vector<PhaseSpec> Dmd2::phases(int64_t step) const {
  std::vector<PhaseSpec> phases = {{"fake_score", config::NetworkRole::kFakeScore, 0}};
  if ((step + 1) % options_.student_interval() == 0) {
    phases.push_back({"student", config::NetworkRole::kStudent, 0});
  }
  return phases;
}

at::Tensor Dmd2::loss(size_t phase, const Networks& networks, Scene& scene) const {
  return phase == 0 ? fake_loss(networks, scene) : student_loss(networks, scene);
}

Dmd2::Last Dmd2::rollout(const Networks& networks, Scene& scene, int first_draw) const {
  const auto& diffusion = networks.diffusion;
  std::vector<int64_t> ends;
  for (int64_t lane = 0; lane < scene.batch(); ++lane) {
    ends.push_back(scene.below(first_draw + kLast, lane, std::ssize(timesteps_)));
  }
  if (scene.kept.empty()) scene.kept.push_back(scene.normal(0));
  while (std::ssize(scene.kept) <= *std::max_element(ends.begin(), ends.end())) {
    const size_t next = scene.kept.size();
    const std::vector<double> here(scene.batch(), timesteps_[next - 1]),
        there(scene.batch(), timesteps_[next]);
    const at::Tensor x = scene.kept.back();
    const at::Tensor v = predicted(networks.student, x, here, scene);
    scene.kept.push_back(noised(diffusion.x0(x, v, levels_of(diffusion, here)),
                                scene.normal(static_cast<int>(next)), levels_of(diffusion, there)));
  }
  Last last;
  std::vector<at::Tensor> lanes;
  for (int64_t lane = 0; lane < scene.batch(); ++lane) {
    last.timesteps.push_back(timesteps_[ends[lane]]);
    lanes.push_back(scene.kept[ends[lane]].select(0, lane));
  }
  last.levels = levels_of(diffusion, last.timesteps);
  last.x = at::stack(lanes);
  return last;
}

std::vector<double> Dmd2::draw_timesteps(const Scene& scene, int first_draw) const {
  std::vector<double> timesteps;
  for (int64_t lane = 0; lane < scene.batch(); ++lane) {
    const double level = shift_level(scene.uniform(first_draw + kLevel, lane), shift_);
    timesteps.push_back(kTimesteps *
                        std::clamp(level, options_.lowest_level(), options_.highest_level()));
  }
  return timesteps;
}

at::Tensor Dmd2::fake_loss(const Networks& networks, Scene& scene) const {
  const Diffusion& diffusion = networks.diffusion;
  const Last last = rollout(networks, scene, kFakeDraws);
  const at::Tensor x =
      diffusion.x0(last.x, predicted(networks.student, last.x, last.timesteps, scene), last.levels);
  const std::vector<double> timesteps = draw_timesteps(scene, kFakeDraws);
  const auto levels = levels_of(diffusion, timesteps);
  const at::Tensor x_s = noised(x, scene.normal(kFakeDraws + kNoise), levels);
  const at::Tensor v = networks.fake_score.predict(x_s, timesteps, scene.text());
  return (v - diffusion.prediction_of(x_s, x, levels)).square().mean();
}

at::Tensor Dmd2::student_loss(const Networks& networks, Scene& scene) const {
  const Diffusion& diffusion = networks.diffusion;
  const Last last = rollout(networks, scene, kStudentDraws);
  const at::Tensor x = diffusion.x0(
      last.x, networks.student.predict(last.x, last.timesteps, scene.text()), last.levels);
  const std::vector<double> timesteps = draw_timesteps(scene, kStudentDraws);
  const auto levels = levels_of(diffusion, timesteps);
  const at::Tensor x_s = noised(x.detach(), scene.normal(kStudentDraws + kNoise), levels);
  const at::Tensor real =
      diffusion.x0(x_s, guided(networks.teacher, x_s, timesteps, scene, guidance_), levels);
  const at::Tensor fake =
      diffusion.x0(x_s, predicted(networks.fake_score, x_s, timesteps, scene), levels);
  scene.score_gap = (real - fake).abs().mean().item<double>();
  const at::Tensor distance = sample_mean((x.detach() - real).abs());
  std::vector<int64_t> shape(x.dim(), 1);
  shape[0] = x.size(0);
  const at::Tensor led = x.detach() - (fake - real) / distance.view(shape);
  return 0.5 * (x - led).square().mean();
}

}  // namespace sprocket::runtime

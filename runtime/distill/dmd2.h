// Distribution matching distillation with a simulated rollout (DMD2, Yin et al., arXiv 2405.14867),
// as VSA's Sparse-Distill trains it (arXiv 2505.13389), for timesteps t_1 > t_2 > … of the student:
//
//   rollout      x at t_1 is noise;  x0 of student(x, t_j);  x = noised(x0, z, t_(j+1)); j even
//   among
//                all; x = x0 of student(x, t_j)
//   a level      s = shift u / (1 + (shift - 1) u), u even in (0, 1), kept in
//                [lowest_level, highest_level];  x_s = noised(x, eps, s)
//   fake score   every step, without the student's graph: mean (fake(x_s) - v*)^2, v* being what
//                predicts x at x_s
//   student      every student_interval-th step: g = (x0 of fake(x_s) - x0 of guided teacher(x_s))
//   /
//                mean |x - x0 of guided teacher|;  mean (x - (x - g))^2 / 2, the bracket without a
//                graph
#pragma once

#include "runtime/distill/recipe.h"

namespace sprocket::runtime {

class Dmd2 : public Recipe {
 public:
  // shift: of noise levels, and of the timesteps if the options say so.
  Dmd2(const config::Dmd2& options, double guidance, double shift);

  std::vector<PhaseSpec> phases(int64_t step) const override;
  at::Tensor loss(size_t phase, const Networks& networks, Scene& scene) const override;

 private:
  struct Last;

  // Where each sample's rollout ends, and x there; extends scene.kept.
  Last rollout(const Networks& networks, Scene& scene, int first_draw) const;
  std::vector<double> draw_timesteps(const Scene& scene, int first_draw) const;
  at::Tensor fake_loss(const Networks& networks, Scene& scene) const;
  at::Tensor student_loss(const Networks& networks, Scene& scene) const;

  const config::Dmd2 options_;
  const double guidance_, shift_;
  std::vector<double> timesteps_;
};

}  // namespace sprocket::runtime

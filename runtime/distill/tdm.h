// Trajectory distribution matching (Luo et al., arXiv 2503.06674), in its own form and in that of
// BLADE (arXiv 2508.10774), for K = segments and dt = 1000 / K:
//
//   trajectory     x at t_K = 999 is noise; from t_i = i dt - 1 to t_(i-1), without a graph:
//                  x0, eps of student(x, t_i);  x = noised(x0, eta eps + sqrt(1 - eta^2) z,
//                  t_(i-1))
//   a segment      i even in 1 .. K;  x0, eps of student(x at t_i, t_i);  t_mid = t_i - dt + 1
//                  x_mid = noised(x0, eta eps + sqrt(1 - eta^2) z, t_mid)
//                  BLADE: t even in [max(t_mid, 1), last_timestep);  ORIGINAL: in [max(t_mid, 1),
//                  t_i] x_t = renoised(x_mid, z', t_mid, t)
//   fake score     BLADE: mean (fake(x_t) - v*)^2, v* being what predicts x0 at x_t
//                  ORIGINAL: alpha^2/sigma^2 mean (x0 of fake(x_t) - x0)^2
//                  and teacher_weight mean (fake(x_t) - teacher(x_t))^2
//   student        BLADE: y = x0, x_t without a graph;  ORIGINAL: y = x_mid
//                  mean sqrt((y - y')^2 + c^2) - c,  y' = y + x0 of guided teacher - x0 of fake,
//                  without a graph;  c = 1e-3 sqrt(elements / huber_elements)
//                  over min(mean |x0 - x0 of guided teacher|, normalise_limit) where that is set
//
// Timesteps are computed, never looked up: 1000 sigma of the unshifted flow.
#pragma once

#include "runtime/distill/recipe.h"

namespace sprocket::runtime {

class Tdm : public Recipe {
 public:
  Tdm(const config::Tdm& options, double guidance) : options_(options), guidance_(guidance) {}

  std::vector<PhaseSpec> phases(int64_t step) const override;
  at::Tensor loss(size_t phase, const Networks& networks, Scene& scene) const override;

 private:
  struct Segment;

  double start_of(int64_t segment) const;
  at::Tensor mixed_noise(const at::Tensor& eps, const at::Tensor& z) const;
  // x of every sample at the start of its segment; extends scene.kept as far as needed.
  at::Tensor trajectory(const Networks& networks, Scene& scene,
                        const std::vector<int64_t>& segments) const;
  Segment draw_segment(const Networks& networks, Scene& scene, int first_draw) const;
  void enter(const Networks& networks, const Scene& scene, const at::Tensor& v, int first_draw,
             Segment& segment) const;
  at::Tensor fake_loss(const Networks& networks, Scene& scene) const;
  at::Tensor student_loss(const Networks& networks, Scene& scene) const;

  const config::Tdm options_;
  const double guidance_;
};

}  // namespace sprocket::runtime

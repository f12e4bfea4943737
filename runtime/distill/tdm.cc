#include "runtime/distill/tdm.h"

#include <algorithm>
#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>

namespace sprocket::runtime {
namespace {

constexpr double kTimesteps = 1000, kHuber = 1e-3;
// Draws of a step: 0 the noise, i the one after segment i, then those of the two phases.
constexpr int kFakeDraws = 64, kStudentDraws = 72;
enum Draw { kSegment, kMid, kTimestep, kRenoise };

}  // namespace

// Of every sample of a micro-batch.
struct Tdm::Segment {
  std::vector<double> start, mid, at;  // timesteps t_i, t_mid and t
  std::vector<Level> start_level, mid_level, at_level;
  at::Tensor x;                // at t_i
  at::Tensor x0, x_mid, x_at;  // of the student's prediction there
};

std::vector<PhaseSpec> Tdm::phases(int64_t) const {
  return {{"fake_score", config::NetworkRole::kFakeScore, options_.skip_above()},
          {"student", config::NetworkRole::kStudent, 0}};
}

at::Tensor Tdm::loss(size_t phase, const Networks& networks, Scene& scene) const {
  return phase == 0 ? fake_loss(networks, scene) : student_loss(networks, scene);
}

double Tdm::start_of(int64_t segment) const {
  return static_cast<double>(segment) * kTimesteps / options_.segments() - 1;
}

at::Tensor Tdm::mixed_noise(const at::Tensor& eps, const at::Tensor& z) const {
  const double eta = options_.eta();
  return eta * eps + std::sqrt(1 - eta * eta) * z;
}

at::Tensor Tdm::trajectory(const Networks& networks, Scene& scene,
                           const std::vector<int64_t>& segments) const {
  const int64_t first = options_.segments();
  const int64_t last = *std::min_element(segments.begin(), segments.end());
  if (scene.kept.empty()) scene.kept.push_back(scene.normal(0));
  for (int64_t i = first + 1 - std::ssize(scene.kept); i > last; --i) {
    const std::vector<double> here(scene.batch(), start_of(i)),
        next(scene.batch(), start_of(i - 1));
    const auto levels = levels_of(networks.diffusion, here);
    const at::Tensor x = scene.kept.back();
    const at::Tensor v = predicted(networks.student, x, here, scene);
    scene.kept.push_back(
        noised(networks.diffusion.x0(x, v, levels),
               mixed_noise(networks.diffusion.eps(x, v, levels), scene.normal(static_cast<int>(i))),
               levels_of(networks.diffusion, next)));
  }
  std::vector<at::Tensor> lanes;
  for (int64_t lane = 0; lane < scene.batch(); ++lane) {
    lanes.push_back(scene.kept[first - segments[lane]].select(0, lane));
  }
  return at::stack(lanes);
}

Tdm::Segment Tdm::draw_segment(const Networks& networks, Scene& scene, int first_draw) const {
  const double length = kTimesteps / options_.segments();
  Segment segment;
  std::vector<int64_t> numbers;
  for (int64_t lane = 0; lane < scene.batch(); ++lane) {
    numbers.push_back(1 + scene.below(first_draw + kSegment, lane, options_.segments()));
    segment.start.push_back(start_of(numbers.back()));
    segment.mid.push_back(segment.start.back() - length + 1);
    const double end = options_.variant() == config::Tdm::BLADE ? options_.last_timestep()
                                                                : segment.start.back() + 1;
    const double lowest = std::max(segment.mid.back(), 1.0);
    segment.at.push_back(lowest +
                         static_cast<double>(scene.below(first_draw + kTimestep, lane,
                                                         static_cast<int64_t>(end - lowest))));
  }
  segment.start_level = levels_of(networks.diffusion, segment.start);
  segment.mid_level = levels_of(networks.diffusion, segment.mid);
  segment.at_level = levels_of(networks.diffusion, segment.at);
  segment.x = trajectory(networks, scene, numbers);
  return segment;
}

// From the student's prediction v at the segment's start to x_t.
void Tdm::enter(const Networks& networks, const Scene& scene, const at::Tensor& v, int first_draw,
                Segment& segment) const {
  const Diffusion& diffusion = networks.diffusion;
  segment.x0 = diffusion.x0(segment.x, v, segment.start_level);
  const at::Tensor eps = diffusion.eps(segment.x, v, segment.start_level);
  segment.x_mid =
      noised(segment.x0, mixed_noise(eps, scene.normal(first_draw + kMid)), segment.mid_level);
  segment.x_at = renoised(segment.x_mid.detach(), scene.normal(first_draw + kRenoise),
                          segment.mid_level, segment.at_level);
}

at::Tensor Tdm::fake_loss(const Networks& networks, Scene& scene) const {
  Segment s = draw_segment(networks, scene, kFakeDraws);
  {
    const at::NoGradGuard no_graph;
    enter(networks, scene, predicted(networks.student, s.x, s.start, scene), kFakeDraws, s);
  }
  const Diffusion& diffusion = networks.diffusion;
  const at::Tensor v = networks.fake_score.predict(s.x_at, s.at, scene.text());
  at::Tensor loss;
  if (options_.variant() == config::Tdm::BLADE) {
    loss = sample_mean((v - diffusion.prediction_of(s.x_at, s.x0, s.at_level)).square());
  } else {
    std::vector<double> snr;
    for (const Level& level : s.at_level) {
      snr.push_back(level.alpha * level.alpha / (level.sigma * level.sigma));
    }
    loss = scaled(sample_mean((diffusion.x0(s.x_at, v, s.at_level) - s.x0).square()), snr);
  }
  if (options_.teacher_weight() > 0) {
    const at::Tensor teacher = predicted(networks.teacher, s.x_at, s.at, scene);
    loss = loss + options_.teacher_weight() * sample_mean((v - teacher).square());
  }
  return loss.mean();
}

at::Tensor Tdm::student_loss(const Networks& networks, Scene& scene) const {
  Segment s = draw_segment(networks, scene, kStudentDraws);
  enter(networks, scene, networks.student.predict(s.x, s.start, scene.text()), kStudentDraws, s);
  const Diffusion& diffusion = networks.diffusion;
  const at::Tensor y = options_.variant() == config::Tdm::BLADE ? s.x0 : s.x_mid;
  const at::Tensor real =
      diffusion.x0(s.x_at, guided(networks.teacher, s.x_at, s.at, scene, guidance_), s.at_level);
  const at::Tensor fake =
      diffusion.x0(s.x_at, predicted(networks.fake_score, s.x_at, s.at, scene), s.at_level);
  scene.score_gap = (real - fake).abs().mean().item<double>();
  const at::Tensor led = y.detach() + real - fake;
  const double c =
      kHuber * std::sqrt(static_cast<double>(scene.elements()) / options_.huber_elements());
  at::Tensor loss = sample_mean(((y - led).square() + c * c).sqrt() - c);
  if (options_.normalise_limit() > 0) {
    loss = loss / sample_mean((s.x0.detach() - real).abs()).clamp_max(options_.normalise_limit());
  }
  return loss.mean();
}

}  // namespace sprocket::runtime

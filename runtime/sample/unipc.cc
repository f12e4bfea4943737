// With a = 1 - s, lambda = log(a / s), h = lambda' - lambda and B = e^-h - 1:
//
//   base(x, m) = s'/s x - a' B m                                      the step of order 1
//   predictor  base(x, m_i) - a' B / 2 D,       D = (m_{i-1} - m_i) / r
//   corrector  base(x_{i-1}, m_{i-1}) - a B (c_0 D + c_1 (m_i - m_{i-1})),
//              D = (m_{i-2} - m_{i-1}) / r
//
// where r = (lambda of the evaluation before - lambda) / h < 0, and c solves the conditions of
// order 2: c_0 + c_1 = b_1, r c_0 + c_1 = b_2.
#include <algorithm>
#include <cmath>

#include "runtime/sample/sampler_plan.h"

namespace sprocket::runtime {
namespace {

constexpr double kBelowPureNoise = 1e-6;
constexpr int kMostOrder = 2;

double log_ratio(double level) { return std::log(1 - level) - std::log(level); }

// From `level` to `next`, where the evaluation before that of `level` was at `before`.
struct Interval {
  double h;       // infinite when next is 0
  double ratio;   // s' / s
  double growth;  // -a' B
  double r = 0;

  Interval(double level, double next)
      : h(log_ratio(next) - log_ratio(level)),
        ratio(next / level),
        growth(-(1 - next) * std::expm1(-h)) {}
  Interval(double before, double level, double next) : Interval(level, next) {
    r = (log_ratio(before) - log_ratio(level)) / h;
  }
};

// The factors of the two differences in a corrector of order 2.
struct CorrectorWeights {
  double before, here;
};

CorrectorWeights corrector_weights(const Interval& interval) {
  const double hh = -interval.h, B = std::expm1(hh);
  const double phi_2 = B / hh - 1, phi_3 = phi_2 / hh - 0.5;
  const double b_1 = phi_2 / B, b_2 = 2 * phi_3 / B;
  const double before = (b_1 - b_2) / (1 - interval.r);
  return {before, b_1 - before};
}

SamplerStep::Update predictor(const std::vector<double>& levels, size_t i, int order) {
  SamplerStep::Update update;
  if (order == 1) {
    const Interval step(levels[i], levels[i + 1]);
    update.x_weight = step.ratio;
    update.clean = {step.growth, 0};
    return update;
  }
  const Interval step(levels[i - 1], levels[i], levels[i + 1]);
  const double slope = step.growth / 2 / step.r;
  update.x_weight = step.ratio;
  update.clean = {step.growth - slope, slope};
  return update;
}

// Of x at levels[i], by the order of the predictor that led there.
SamplerStep::Correction corrector(const std::vector<double>& levels, size_t i, int order) {
  if (order == 1) {
    const Interval step(levels[i - 1], levels[i]);
    return {step.ratio, {step.growth / 2, step.growth / 2, 0}};
  }
  const Interval step(levels[i - 2], levels[i - 1], levels[i]);
  const CorrectorWeights weights = corrector_weights(step);
  const double slope = step.growth * weights.before / step.r, here = step.growth * weights.here;
  return {step.ratio, {here, step.growth - slope - here, slope}};
}

}  // namespace

SamplerPlan plan_unipc(const NoiseSchedule& schedule) {
  std::vector<double> levels = schedule.levels;
  if (levels.front() == 1) levels.front() -= kBelowPureNoise;
  const int steps = static_cast<int>(schedule.timesteps.size());
  SamplerPlan plan(steps);
  int order_before = 0;
  for (int i = 0; i < steps; ++i) {
    SamplerStep& step = plan[i];
    step.level = levels[i];
    step.timestep = schedule.timesteps[i];
    step.clean.v_weight = -levels[i];
    if (i > 0) step.correction = corrector(levels, i, order_before);
    order_before = std::min({kMostOrder, i + 1, steps - i});
    step.update = predictor(levels, i, order_before);
  }
  return plan;
}

}  // namespace sprocket::runtime

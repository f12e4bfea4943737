#include "runtime/diffusion/ddpm_schedule.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace sprocket::runtime {
namespace {

// Of the square roots: the last becomes 0 and the first stays.
void end_in_noise(std::vector<double>& powers) {
  const double first = std::sqrt(powers.front()), last = std::sqrt(powers.back());
  for (double& power : powers) {
    const double root = (std::sqrt(power) - last) * (first / (first - last));
    power = root * root;
  }
}

// Half the logarithm of the signal-to-noise ratio; infinite at both ends.
double log_ratio(double abar) { return 0.5 * std::log(abar / (1 - abar)); }

}  // namespace

std::vector<double> ddpm_signal_powers(const DdpmSpec& spec) {
  SPROCKET_CHECK_GE(spec.timesteps, 2);
  SPROCKET_CHECK(0 < spec.beta_start && spec.beta_start <= spec.beta_end && spec.beta_end < 1,
                 "betas from {} to {}", spec.beta_start, spec.beta_end);
  SPROCKET_CHECK(spec.snr_shift > 0, "found {}", spec.snr_shift);
  const double first = std::sqrt(spec.beta_start), last = std::sqrt(spec.beta_end);
  std::vector<double> powers(spec.timesteps);
  double product = 1;
  for (int t = 0; t < spec.timesteps; ++t) {
    const double root = first + (last - first) * t / (spec.timesteps - 1);
    product *= 1 - root * root;
    powers[t] = product;
  }
  for (double& power : powers) power /= spec.snr_shift + (1 - spec.snr_shift) * power;
  if (spec.zero_terminal_snr) end_in_noise(powers);
  return powers;
}

std::vector<int> ddpm_timesteps(TimestepSpacing spacing, int timesteps, int steps) {
  SPROCKET_CHECK(1 <= steps && steps <= timesteps, "{} steps over {} timesteps", steps, timesteps);
  const double all = timesteps;
  std::vector<int> falling(steps);
  for (int i = 0; i < steps; ++i) {
    const int left = steps - 1 - i;
    switch (spacing) {
      case TimestepSpacing::kLinspace:
        falling[i] =
            steps > 1 ? static_cast<int>(std::nearbyint(left * ((all - 1) / (steps - 1)))) : 0;
        break;
      case TimestepSpacing::kLeading:
        falling[i] = left * (timesteps / steps);
        break;
      case TimestepSpacing::kTrailing:
        falling[i] = static_cast<int>(std::nearbyint(all - i * (all / steps))) - 1;
        break;
    }
  }
  return falling;
}

DdpmStep ddim_step(double abar, double next_abar) {
  const double kept = std::sqrt((1 - next_abar) / (1 - abar));
  return {kept, std::sqrt(next_abar) - std::sqrt(abar) * kept, 0, 0};
}

DdpmStep dpm_step(double abar, double next_abar, std::optional<double> last_abar) {
  const double h = log_ratio(next_abar) - log_ratio(abar);
  const double fresh = -std::expm1(-2 * h);  // 1 where either end of the step is infinite
  DdpmStep step;
  step.sample = std::sqrt((1 - next_abar) / (1 - abar)) * std::exp(-h);
  step.clean = fresh * std::sqrt(next_abar);
  step.noise = std::sqrt((1 - next_abar) * fresh);
  if (last_abar && next_abar < 1) {
    const double of_last = h / (2 * (log_ratio(abar) - log_ratio(*last_abar)));
    step.last_clean = -step.clean * of_last;
    step.clean *= 1 + of_last;
  }
  return step;
}

}  // namespace sprocket::runtime

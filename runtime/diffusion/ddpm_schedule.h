// The discrete diffusion (DDPM, arXiv 2006.11239) that CogVideoX is trained with, as numbers.
//
//   x_t = a_t x0 + s_t eps,   a_t = sqrt(abar_t),   s_t = sqrt(1 - abar_t),   t = 0 .. T - 1
//   the model predicts v = a_t eps - s_t x0 (arXiv 2202.00512)
//
// All in fp64 and without tensors: a sampler's step is a handful of coefficients.
#pragma once

#include <optional>
#include <vector>

namespace sprocket::runtime {

// T of every published model of this kind.
inline constexpr int kDdpmTimesteps = 1000;

struct DdpmSpec {
  int timesteps = kDdpmTimesteps;  // T, at least 2
  double beta_start = 0.00085;
  double beta_end = 0.012;
  // Of the signal-to-noise ratio, which is divided by it. Published schedules differ (3 and 1), so
  // there is no default that is right: take it from the model's own schedule.
  double snr_shift = 1;
  // abar_{T-1} = 0: the last timestep is noise alone (arXiv 2305.08891, algorithm 1).
  bool zero_terminal_snr = false;
};

// abar_t for t = 0 .. T - 1, falling: the cumulative product of 1 - beta with sqrt(beta) equally
// spaced, then shifted, abar / (shift + (1 - shift) abar), then scaled to a zero terminal SNR, in
// this order. Throws InternalError unless T >= 2, 0 < beta_start <= beta_end < 1 and shift > 0.
std::vector<double> ddpm_signal_powers(const DdpmSpec& spec);

// Which timesteps a sampler of n steps visits, as they are called in arXiv 2305.08891; halves are
// rounded to even.
enum class TimestepSpacing {
  kLinspace,  // round(linspace(0, T - 1, n))
  kLeading,   // multiples of floor(T / n) from 0
  kTrailing,  // round(T - i T / n) - 1
};

// Falling, [n]. 1 <= n <= T.
std::vector<int> ddpm_timesteps(TimestepSpacing spacing, int timesteps, int steps);

// A sampler's step from t to t - floor(T / n): x' = x * sample + x0 * clean + x0' * last_clean
// + z * noise, with x0 predicted at t, x0' the one of the step before, and z standard normal.
struct DdpmStep {
  double sample = 0;
  double clean = 0;
  double last_clean = 0;
  double noise = 0;
};

// DDIM (arXiv 2010.02502) without noise, from abar to next_abar; next_abar is 1 behind the last
// step.
DdpmStep ddim_step(double abar, double next_abar);

// The stochastic second-order multistep solver of DPM-Solver++ (arXiv 2211.01095, SDE-DPM-Solver++
// (2M)) as CogVideoX uses it; last_abar is that of the step before, none at the first step. The
// step to next_abar = 1 is of first order.
DdpmStep dpm_step(double abar, double next_abar, std::optional<double> last_abar);

}  // namespace sprocket::runtime

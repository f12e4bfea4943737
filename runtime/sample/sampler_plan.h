// A sampler as numbers: every step of it is linear in what is at hand then, with fp64 coefficients
// that the noise levels determine. Integrator (integrator.h) carries a plan out.
//
// At step i the network is evaluated at x, which has noise level `level`, and predicts v. Its
// prediction of the clean latent is m_i. Where a sampler is a corrector too, x is replaced by a
// better estimate for the same level, now that m_i is known. Then x goes to the next level.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "configs/job.pb.h"
#include "runtime/diffusion/diffusion.h"
#include "runtime/sample/noise_schedule.h"

namespace sprocket::runtime {

struct SamplerStep {
  // m = x_weight x + v_weight v.
  struct Clean {
    double x_weight = 1;
    double v_weight = 0;
  };
  // x <- previous * (x of the step before, when that had been corrected)
  //      + clean[0] m_i + clean[1] m_{i-1} + clean[2] m_{i-2}.
  struct Correction {
    double previous = 0;
    std::array<double, 3> clean = {};
  };
  // x <- x_weight x + v_weight v + clean[0] m_i + clean[1] m_{i-1} + noise_weight z, z being
  // standard normal.
  struct Update {
    double x_weight = 1;
    double v_weight = 0;
    std::array<double, 2> clean = {};
    double noise_weight = 0;
  };

  double level = 0;     // the noise's weight in x
  double timestep = 0;  // the model's time input
  Clean clean;
  std::optional<Correction> correction;
  Update update;
};

// One step for each level but the last, which is 0.
using SamplerPlan = std::vector<SamplerStep>;

// x <- x + (s' - s) v, from level s to s'.
SamplerPlan plan_euler(const NoiseSchedule& schedule);

// x <- alpha' m + sigma' (eta eps + sqrt(1 - eta^2) z): the predicted latent with noise of which a
// part is the predicted one (TDM, arXiv 2503.06674, as BLADE, arXiv 2508.10774, samples).
// 0 <= eta <= 1. Over the levels of a flow; and from one of the timesteps to the next, behind the
// last of which all is clean, in either form of diffusion.
SamplerPlan plan_tdm(const NoiseSchedule& schedule, double eta);
SamplerPlan plan_tdm(const Diffusion& diffusion, std::span<const double> timesteps, double eta);

// UniPC (arXiv 2302.04867) of order 2 with B(h) = e^h - 1 ("bh2"), predicting the clean latent; of
// order 1 at the first and at the last step. A first level of 1, where the signal-to-noise ratio
// has no logarithm, is taken for 1 - 1e-6.
SamplerPlan plan_unipc(const NoiseSchedule& schedule);

// Over powers[t] = abar_t of a model of v-prediction, at ddpm_timesteps of trailing spacing and
// with the steps of ddpm_schedule.h: ddim_step and dpm_step. A step goes from t to t - floor(T /
// steps), or to the clean latent where that is below 0.
SamplerPlan plan_ddim(std::span<const double> powers, int steps);
SamplerPlan plan_dpm(std::span<const double> powers, int steps);

// What `sampling` asks for of the model of a valid job.
SamplerPlan plan_sampler(const config::Sampling& sampling, const config::Job& job);

}  // namespace sprocket::runtime

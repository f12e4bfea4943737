#include "runtime/train/job_diffusion.h"

#include <cmath>

#include "base/error.h"
#include "runtime/diffusion/ddpm_schedule.h"

namespace sprocket::runtime {
namespace {

[[noreturn]] void no_counterpart() { throw InternalError("model.family has no counterpart"); }

}  // namespace

Diffusion job_diffusion(const config::Job& job) {
  switch (job.model().family()) {
    case config::Model::WAN:
      return Diffusion::flow();
    case config::Model::COGVIDEOX:
      return Diffusion::v_prediction(signal_powers(job.ddpm()));
  }
  no_counterpart();
}

std::vector<double> signal_powers(const config::Ddpm& ddpm) {
  DdpmSpec spec;
  spec.beta_start = ddpm.beta_start();
  spec.beta_end = ddpm.beta_end();
  spec.snr_shift = ddpm.snr_shift();
  spec.zero_terminal_snr = ddpm.zero_terminal_snr();
  return ddpm_signal_powers(spec);
}

double draw_timestep(const config::Job& job, const SampleKey& key) {
  switch (job.model().family()) {
    case config::Model::WAN:
      return kTimesteps * draw_level(job.flow(), key);
    case config::Model::COGVIDEOX:
      return static_cast<double>(draw_index(kDdpmTimesteps, key));
  }
  no_counterpart();
}

double validation_timestep(const config::Job& job, int level) {
  const double middle = (level + 0.5) / job.training().validation().levels();
  switch (job.model().family()) {
    case config::Model::WAN:
      return kTimesteps * shift_level(middle, job.flow().shift());
    case config::Model::COGVIDEOX:
      return std::floor(kDdpmTimesteps * middle);
  }
  no_counterpart();
}

}  // namespace sprocket::runtime

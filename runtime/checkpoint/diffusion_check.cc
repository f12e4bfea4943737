#include "runtime/checkpoint/diffusion_check.h"

#include "base/log.h"

namespace sprocket::runtime {

void warn_of_other_diffusion(const std::string& path, const config::Job& checkpoint,
                             const config::Job& job, const std::string& whose) {
  const auto compare = [&](const char* field, auto theirs, auto ours) {
    if (theirs == ours) return;
    spdlog::warn("{}: trained with {} {}, {} continues with {}", path, field, theirs, whose, ours);
  };
  switch (job.model().family()) {
    case config::Model::WAN:
      compare("flow.shift", checkpoint.flow().shift(), job.flow().shift());
      return;
    case config::Model::COGVIDEOX: {
      const config::Ddpm &theirs = checkpoint.ddpm(), &ours = job.ddpm();
      compare("ddpm.beta_start", theirs.beta_start(), ours.beta_start());
      compare("ddpm.beta_end", theirs.beta_end(), ours.beta_end());
      compare("ddpm.snr_shift", theirs.snr_shift(), ours.snr_shift());
      compare("ddpm.zero_terminal_snr", theirs.zero_terminal_snr(), ours.zero_terminal_snr());
      return;
    }
  }
}

}  // namespace sprocket::runtime

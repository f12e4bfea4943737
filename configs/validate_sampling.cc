#include <cmath>

#include <fmt/format.h>

#include "configs/findings.h"

namespace sprocket::config {
namespace {

constexpr int64_t kTimesteps = 1000;
constexpr int64_t kMostSteps = 100000;

void check_falling(const Sampling& sampling, Findings& findings) {
  for (int i = 0; i < sampling.timestep_size(); ++i) {
    const double timestep = sampling.timestep(i);
    const double above = i == 0 ? double{kTimesteps} : sampling.timestep(i - 1);
    if (timestep > 0 && (i == 0 ? timestep <= above : timestep < above)) continue;
    findings.add(
        {"sampling.timestep"},
        fmt::format("{} as number {}; legal: 1000 or less, descending, above 0", timestep, i + 1));
  }
}

void check_flow(const Sampling& sampling, Findings& findings) {
  switch (sampling.sampler()) {
    case Sampling::EULER:
    case Sampling::UNIPC:
    case Sampling::TDM:
      break;
    case Sampling::DDIM:
    case Sampling::DPM:
      findings.add(
          {"sampling.sampler", "model.family"},
          fmt::format("{} is for models of v-prediction; legal with WAN: EULER, UNIPC, TDM",
                      Sampling::Sampler_Name(sampling.sampler())));
  }
  findings.in_range("sampling.steps", sampling.steps(), 1, kMostSteps);
  check_falling(sampling, findings);
}

void check_listed_steps(const Sampling& sampling, Findings& findings) {
  if (sampling.timestep().empty()) {
    findings.add({"sampling.timestep", "sampling.sampler"},
                 "not set; expected with TDM and COGVIDEOX: the timesteps that the model was "
                 "distilled to, such as [999, 749, 499, 249]");
  }
  check_falling(sampling, findings);
  for (const double timestep : sampling.timestep()) {
    if (timestep < kTimesteps && timestep == std::floor(timestep)) continue;
    findings.add({"sampling.timestep", "model.family"},
                 fmt::format("{}; legal with COGVIDEOX: whole numbers of 1 to 999", timestep));
  }
}

void check_v_prediction(const Sampling& sampling, Findings& findings) {
  switch (sampling.sampler()) {
    case Sampling::EULER:
    case Sampling::UNIPC:
      findings.add({"sampling.sampler", "model.family"},
                   fmt::format("{} is for models of flow matching; legal with COGVIDEOX: DDIM, "
                               "DPM, TDM",
                               Sampling::Sampler_Name(sampling.sampler())));
      break;
    case Sampling::TDM:
      check_listed_steps(sampling, findings);
      break;
    case Sampling::DDIM:
    case Sampling::DPM:
      findings.in_range("sampling.steps", sampling.steps(), 1, kTimesteps);
      if (!sampling.timestep().empty()) {
        findings.add({"sampling.timestep", "sampling.sampler"},
                     fmt::format("set with {}, whose timesteps follow from sampling.steps; legal: "
                                 "none, or sampling.sampler: TDM",
                                 Sampling::Sampler_Name(sampling.sampler())));
      }
  }
  if (sampling.shift() > 0) {
    findings.add({"sampling.shift", "model.family"},
                 fmt::format("{}; legal with COGVIDEOX: 0, its noise levels are those of ddpm",
                             sampling.shift()));
  }
}

}  // namespace

void check_sampling(const Job& job, Findings& findings) {
  const Sampling& sampling = job.sampling();
  findings.extent("sampling.count", sampling.count());
  findings.number("sampling.guidance", sampling.guidance(), sampling.guidance() >= 0,
                  "guidance >= 0");
  findings.number("sampling.shift", sampling.shift(), sampling.shift() >= 0,
                  "shift >= 0 (0: flow.shift)");
  findings.number("sampling.eta", sampling.eta(), sampling.eta() >= 0 && sampling.eta() <= 1,
                  "0 <= eta <= 1");
  switch (job.model().family()) {
    case Model::WAN:
      return check_flow(sampling, findings);
    case Model::COGVIDEOX:
      return check_v_prediction(sampling, findings);
  }
}

}  // namespace sprocket::config

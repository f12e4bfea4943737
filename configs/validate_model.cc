#include <fmt/format.h>

#include "configs/findings.h"

namespace sprocket::config {
namespace {

// Of what is shared out to t, h and w, a quarter and twice three eighths, each in pairs.
constexpr int64_t kCogVideoXMultiple = 16;

void check_epsilon(const std::string& path, double value, Findings& findings) {
  findings.number(path, value, value > 0 && value < 1, "0 < epsilon < 1");
}

// The heads of a legal model.dim. `fits` is whether a head may have so many channels; `expected`
// says it in words.
template <class Fits>
void check_heads(const Model& model, Fits&& fits, const char* expected, Findings& findings) {
  std::vector<int64_t> legal;
  for (const int64_t heads : divisors(model.dim())) {
    if (fits(model.dim() / heads)) legal.push_back(heads);
  }
  if (model.dim() % model.heads() != 0) {
    findings.add({"model.heads", "model.dim"},
                 fmt::format("{} does not divide model.dim: {}; legal: {}", model.heads(),
                             model.dim(), list(legal)));
  } else if (!fits(model.dim() / model.heads())) {
    findings.add({"model.heads", "model.dim"},
                 fmt::format("{} of model.dim: {} makes heads of {} channels, expected {}; legal: "
                             "{}",
                             model.heads(), model.dim(), model.dim() / model.heads(), expected,
                             list(legal)));
  }
}

void check_wan(const Job& job, bool has_heads, Findings& findings) {
  const Model& model = job.model();
  if (findings.extent("model.frequency_dim", model.frequency_dim()) &&
      model.frequency_dim() % 2 != 0) {
    findings.add({"model.frequency_dim"}, fmt::format("{} is odd; legal: even numbers, half of "
                                                      "them cosines and half sines",
                                                      model.frequency_dim()));
  }
  const auto fits = [](int64_t channels) { return channels % 2 == 0 && channels >= 6; };
  if (has_heads) check_heads(model, fits, "an even number of at least 6", findings);
  if (model.has_cogvideox()) {
    findings.add({"model.cogvideox", "model.family"},
                 "in a WAN model; legal: none, or model.family: COGVIDEOX");
  }
  if (job.has_ddpm()) {
    findings.add({"ddpm", "model.family"},
                 "WAN learns flow matching; legal: flow, or model.family: COGVIDEOX");
  }
  findings.number("flow.shift", job.flow().shift(), job.flow().shift() > 0, "shift > 0");
}

void check_ddpm(const Ddpm& ddpm, Findings& findings) {
  findings.number("ddpm.beta_start", ddpm.beta_start(),
                  ddpm.beta_start() > 0 && ddpm.beta_start() <= ddpm.beta_end(),
                  "0 < beta_start <= ddpm.beta_end");
  findings.number("ddpm.beta_end", ddpm.beta_end(), ddpm.beta_end() > 0 && ddpm.beta_end() < 1,
                  "0 < beta_end < 1");
  findings.number("ddpm.snr_shift", ddpm.snr_shift(), ddpm.snr_shift() > 0, "snr_shift > 0");
}

void check_cogvideox(const Job& job, bool has_dim, bool has_heads, Findings& findings) {
  const Model& model = job.model();
  const CogVideoX& own = model.cogvideox();
  const std::string at = "model.cogvideox.";
  const auto scale = [&](const char* name, double value) {
    findings.number(at + name, value, value > 0, "above 0");
  };
  if (has_dim && model.dim() % kCogVideoXMultiple != 0) {
    const int64_t below = model.dim() / kCogVideoXMultiple * kCogVideoXMultiple;
    std::vector<int64_t> legal = {below, below + kCogVideoXMultiple};
    if (below == 0) legal.erase(legal.begin());
    findings.add({"model.dim"}, fmt::format("{} is no multiple of {}, which sinusoids of t, h and "
                                            "w need; legal: {}",
                                            model.dim(), kCogVideoXMultiple, list(legal)));
  } else if (has_heads) {
    const bool rotary = own.positions() != CogVideoX::SINUSOIDS;
    const auto fits = [rotary](int64_t channels) {
      return !rotary || channels % kCogVideoXMultiple == 0;
    };
    check_heads(model, fits, "a multiple of 16 for rotary positions", findings);
  }
  findings.extent(at + "time_dim", own.time_dim());
  scale("spatial_scale", own.spatial_scale());
  scale("temporal_scale", own.temporal_scale());
  findings.extent(at + "base_height", own.base_height());
  findings.extent(at + "base_width", own.base_width());
  check_epsilon(at + "qk_epsilon", own.qk_epsilon(), findings);
  if (job.has_flow()) {
    findings.add({"flow", "model.family"},
                 "COGVIDEOX learns v-prediction; legal: ddpm, or model.family: WAN");
  }
  check_ddpm(job.ddpm(), findings);
  if (job.has_distillation() && job.distillation().recipe() == Distillation::DMD2) {
    findings.add({"distillation.recipe", "model.family"},
                 "DMD2 draws the noise levels of a flow; legal with COGVIDEOX: TDM");
  }
}

}  // namespace

void check_model(const Job& job, Findings& findings) {
  const Model& model = job.model();
  const bool dim = findings.extent("model.dim", model.dim());
  const bool heads = findings.extent("model.heads", model.heads()) && dim;
  findings.in_range("model.layers", model.layers(), 1, 10000);
  findings.extent("model.ffn_dim", model.ffn_dim());
  findings.extent("model.latent_channels", model.latent_channels());
  findings.extent("model.patch.t", model.patch().t());
  findings.extent("model.patch.h", model.patch().h());
  findings.extent("model.patch.w", model.patch().w());
  findings.extent("model.text_dim", model.text_dim());
  findings.extent("model.text_tokens", model.text_tokens());
  check_epsilon("model.epsilon", model.epsilon(), findings);
  switch (model.family()) {
    case Model::WAN:
      return check_wan(job, heads, findings);
    case Model::COGVIDEOX:
      return check_cogvideox(job, dim, heads, findings);
  }
}

}  // namespace sprocket::config

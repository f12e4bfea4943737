#include "runtime/plan/flops.h"

#include <algorithm>

#include "base/error.h"
#include "configs/attention_rules.h"

namespace sprocket::runtime {

namespace {

struct Widths {
  explicit Widths(const config::Job& job)
      : dim(job.model().dim()),
        ffn(job.model().ffn_dim()),
        features(double{1} * job.model().latent_channels() * job.model().patch().t() *
                 job.model().patch().h() * job.model().patch().w()),
        text(job.model().text_tokens()),
        text_dim(job.model().text_dim()),
        attention_layers(4 + config::has_coarse_gate(job.attention()) +
                         config::has_fine_gate(job.attention())) {}

  double dim, ffn, features, text, text_dim;
  int attention_layers;  // linear, of dim x dim
};

ForwardFlops wan_flops(const Widths& w, double tokens) {
  const double self = w.attention_layers * 2 * tokens * w.dim * w.dim;
  const double cross = 2 * 2 * tokens * w.dim * w.dim + 2 * 2 * w.text * w.dim * w.dim;
  const double feed_forward = 2 * 2 * tokens * w.dim * w.ffn;
  ForwardFlops f;
  f.block_linear = self + cross + feed_forward;
  f.block_cross_attention = 4 * tokens * w.text * w.dim;
  f.edges = 2 * 2 * tokens * w.features * w.dim + 2 * w.text * w.dim * (w.text_dim + w.dim);
  return f;
}

// Of `tokens` the first are text.
ForwardFlops cogvideox_flops(const Widths& w, double time_dim, double tokens) {
  const double text = std::min(w.text, tokens);
  const double modulation = 2 * 2 * time_dim * 6 * w.dim;
  ForwardFlops f;
  f.block_linear =
      w.attention_layers * 2 * tokens * w.dim * w.dim + 2 * 2 * tokens * w.dim * w.ffn + modulation;
  f.edges = 2 * 2 * (tokens - text) * w.features * w.dim + 2 * text * w.dim * w.text_dim;
  return f;
}

}  // namespace

ForwardFlops forward_flops(const config::Job& job, double tokens) {
  switch (job.model().family()) {
    case config::Model::WAN:
      return wan_flops(Widths(job), tokens);
    case config::Model::COGVIDEOX:
      return cogvideox_flops(Widths(job), job.model().cogvideox().time_dim(), tokens);
  }
  throw InternalError("model.family has no counterpart");
}

namespace {

struct SampleFlops {
  double linear, cross_attention, self_attention;  // of the forward; attention dense
};

SampleFlops sample_flops(const config::Job& job, int64_t tokens) {
  const auto length = static_cast<double>(tokens);
  const ForwardFlops f = forward_flops(job, length);
  const double layers = job.model().layers();
  return {layers * f.block_linear + f.edges, layers * f.block_cross_attention,
          layers * 4 * length * length * job.model().dim()};
}

}  // namespace

StepFlops step_flops(const config::Job& job, int64_t samples, int64_t tokens, double density) {
  const auto [linear, cross_attention, self_attention] = sample_flops(job, tokens);
  const double again = job.training().activation_checkpointing() == config::Training::BLOCK ? 1 : 0;
  const double products = job.training().lora().rank() > 0 ? 2 : 3;
  StepFlops flops;
  flops.dense_equivalent =
      static_cast<double>(samples) * (products * linear + 3 * (self_attention + cross_attention));
  flops.executed =
      static_cast<double>(samples) *
      ((products + again) * linear + (3.5 + again) * (density * self_attention + cross_attention));
  return flops;
}

StepFlops forward_step_flops(const config::Job& job, int64_t samples, int64_t tokens,
                             double density) {
  const auto [linear, cross_attention, self_attention] = sample_flops(job, tokens);
  const auto count = static_cast<double>(samples);
  return {count * (linear + self_attention + cross_attention),
          count * (linear + density * self_attention + cross_attention)};
}

}  // namespace sprocket::runtime

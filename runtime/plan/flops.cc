#include "runtime/plan/flops.h"

#include "configs/attention_rules.h"

namespace sprocket::runtime {

ForwardFlops forward_flops(const config::Job& job, double tokens) {
  const config::Model& m = job.model();
  const double dim = m.dim(), ffn = m.ffn_dim(), text = m.text_tokens();
  const double features =
      double{1} * m.latent_channels() * m.patch().t() * m.patch().h() * m.patch().w();
  const int gates =
      config::has_coarse_gate(job.attention()) + config::has_fine_gate(job.attention());
  const double self = (4 + gates) * 2 * tokens * dim * dim;
  const double cross = 2 * 2 * tokens * dim * dim + 2 * 2 * text * dim * dim;
  const double feed_forward = 2 * 2 * tokens * dim * ffn;
  ForwardFlops f;
  f.block_linear = self + cross + feed_forward;
  f.block_cross_attention = 4 * tokens * text * dim;
  f.edges = 2 * 2 * tokens * features * dim + 2 * text * dim * (m.text_dim() + dim);
  return f;
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

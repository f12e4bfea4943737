#include "runtime/metrics/flops.h"

#include "configs/attention_rules.h"

namespace sprocket::runtime {
namespace {

// Forward of one sample.
struct Forward {
  double linear = 0;
  double self_attention = 0;  // dense
  double cross_attention = 0;
};

Forward forward_flops(const config::Job& job, double tokens) {
  const config::Model& m = job.model();
  const double dim = m.dim(), ffn = m.ffn_dim(), text = m.text_tokens();
  const double features =
      double{1} * m.latent_channels() * m.patch().t() * m.patch().h() * m.patch().w();
  const int gates =
      config::has_coarse_gate(job.attention()) + config::has_fine_gate(job.attention());
  Forward f;
  const double self = (4 + gates) * 2 * tokens * dim * dim;
  const double cross = 2 * 2 * tokens * dim * dim + 2 * 2 * text * dim * dim;
  const double feed_forward = 2 * 2 * tokens * dim * ffn;
  const double edges = 2 * 2 * tokens * features * dim + 2 * text * dim * (m.text_dim() + dim);
  f.linear = m.layers() * (self + cross + feed_forward) + edges;
  f.self_attention = m.layers() * 4 * tokens * tokens * dim;
  f.cross_attention = m.layers() * 4 * tokens * text * dim;
  return f;
}

}  // namespace

StepFlops step_flops(const config::Job& job, int64_t samples, int64_t tokens, double density) {
  const Forward f = forward_flops(job, static_cast<double>(tokens));
  const double again = job.training().activation_checkpointing() == config::Training::BLOCK ? 1 : 0;
  StepFlops flops;
  flops.dense_equivalent =
      static_cast<double>(samples) * 3 * (f.linear + f.self_attention + f.cross_attention);
  flops.executed =
      static_cast<double>(samples) *
      ((3 + again) * f.linear + (3.5 + again) * (density * f.self_attention + f.cross_attention));
  return flops;
}

}  // namespace sprocket::runtime

// A transformer sharded over a mesh, as recipes see it.
#pragma once

#include "runtime/distill/recipe.h"
#include "runtime/train/network.h"
#include "runtime/train/offloaded_weights.h"

namespace sprocket::runtime {

// Samples that a network was evaluated for.
struct Evaluations {
  int64_t plain = 0;       // forward alone
  int64_t with_graph = 0;  // with a backward after it
};

// Latents are whole and in host memory on every rank (docs/decisions/whole_latents.md); the network
// takes this rank's tokens of them, and its predictions are gathered over the sequence group. The
// backward of the gather keeps this rank's tokens of the gradient.
class NetworkDenoiser : public Denoiser {
 public:
  // plain: the phase of evaluations without a graph. offloaded: the network's weights, where they
  // are fetched for every evaluation; of a network that is evaluated without a graph alone.
  NetworkDenoiser(Network& network, Phase plain, OffloadedWeights* offloaded = nullptr)
      : network_(network), plain_(plain), offloaded_(offloaded) {}

  // Attention schedules are those of this step from now on, and evaluations are counted anew.
  void begin_step(int64_t step) {
    step_ = step;
    evaluations_ = {};
  }
  // Since the step began, of this rank's replica.
  const Evaluations& evaluations() const { return evaluations_; }

  // x [B, C, T, H, W]; text [B, text_tokens, text_dim].
  at::Tensor predict(const at::Tensor& x, std::span<const double> timesteps,
                     const at::Tensor& text) override;
  void end_backward() override;

 private:
  Network& network_;
  const Phase plain_;
  OffloadedWeights* const offloaded_;
  int64_t step_ = 0;
  Evaluations evaluations_;
  data::LatentShape shape_;  // of the last x
};

}  // namespace sprocket::runtime

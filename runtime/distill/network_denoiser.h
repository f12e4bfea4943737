// A transformer sharded over a mesh, as recipes see it.
#pragma once

#include "runtime/distill/recipe.h"
#include "runtime/train/network.h"

namespace sprocket::runtime {

// Latents are whole and in host memory on every rank (docs/decisions/whole_latents.md); the network
// takes this rank's tokens of them, and its predictions are gathered over the sequence group. The
// backward of the gather keeps this rank's tokens of the gradient.
class NetworkDenoiser : public Denoiser {
 public:
  explicit NetworkDenoiser(Network& network) : network_(network) {}

  // Attention schedules are those of this step from now on.
  void set_step(int64_t step) { step_ = step; }

  // x [B, C, T, H, W]; text [B, text_tokens, text_dim].
  at::Tensor predict(const at::Tensor& x, std::span<const double> timesteps,
                     const at::Tensor& text) override;
  void end_backward() override;

 private:
  Network& network_;
  int64_t step_ = 0;
  data::LatentShape shape_;  // of the last x
};

}  // namespace sprocket::runtime

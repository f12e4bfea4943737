// Sizes of a CogVideoX-shaped video diffusion transformer (arXiv 2408.06072), in the form of
// diffusers' CogVideoXTransformer3DModel.
#pragma once

#include <vector>

#include "models/parameter_spec.h"
#include "models/patch.h"

namespace sprocket::models {

// How video tokens know where they are; text tokens have no position.
enum class CogVideoXPositions {
  kSinusoids,   // added to the embedded patches (2B)
  kScaledRope,  // rotary, the grid of tokens fitted into that of the training videos (5B)
  kRope,        // rotary, whole positions (1.5)
};

// Defaults are those of CogVideoX-2B.
struct CogVideoXConfig {
  int dim = 1920;  // a multiple of 16
  int heads = 30;
  int layers = 30;
  int ffn_dim = 7680;
  int latent_channels = 16;
  Patch patch;  // t above 1: the patch embedding of 1.5, otherwise that of 1.0
  int text_dim = 4096;
  int text_tokens = 226;
  int time_dim = 512;
  CogVideoXPositions positions = CogVideoXPositions::kSinusoids;
  double spatial_scale = 1.875;  // kSinusoids: h and w are divided by it
  double temporal_scale = 1;     // kSinusoids: so is t by this one
  int base_height = 30;          // kScaledRope: the grid of tokens that h and w are fitted into
  int base_width = 45;           // kScaledRope
  double eps = 1e-5;             // of all norms but those of queries and keys
  double qk_eps = 1e-6;          // of those
  // Whether every block has the gates of VSA's branches: attn1.to_gate_compress of the coarse one,
  // attn1.to_gate_fine of the fine one.
  bool coarse_gate = false;
  bool fine_gate = false;

  int head_dim() const { return dim / heads; }
  int patch_features() const { return latent_channels * patch.cells(); }
  bool rotary() const { return positions != CogVideoXPositions::kSinusoids; }
  bool operator==(const CogVideoXConfig&) const = default;
};

// Every tensor of the model under its diffusers name: 16 + 24 per block, in module order, then the
// gates (2 per block each). Modulations and the output start at zero, so that every block starts
// as the identity (DiT, arXiv 2212.09748).
std::vector<ParameterSpec> cogvideox_parameters(const CogVideoXConfig& config);

}  // namespace sprocket::models

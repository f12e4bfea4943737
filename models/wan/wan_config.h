// Sizes of a Wan-shaped video diffusion transformer.
#pragma once

#include <cstdint>
#include <vector>

#include "models/parameter_spec.h"
#include "models/patch.h"

namespace sprocket::models {

// Defaults are those of Wan2.1-T2V-1.3B.
struct WanConfig {
  int dim = 1536;
  int heads = 12;
  int layers = 30;
  int ffn_dim = 8960;
  int latent_channels = 16;
  Patch patch;
  int text_dim = 4096;
  int text_tokens = 512;
  int frequency_dim = 256;
  double eps = 1e-6;
  // Whether every block has the gates of VSA's branches: self_attn.to_gate_compress of the coarse
  // one, self_attn.to_gate_fine of the fine one.
  bool coarse_gate = false;
  bool fine_gate = false;

  int head_dim() const { return dim / heads; }
  int patch_features() const { return latent_channels * patch.cells(); }
  bool operator==(const WanConfig&) const = default;
};

// Every tensor of the model under its official Wan name: 15 + 27 per block, in module order, then
// the gates (2 per block each), so that the initial values of the others do not depend on the
// gates.
std::vector<ParameterSpec> wan_parameters(const WanConfig& config);

}  // namespace sprocket::models

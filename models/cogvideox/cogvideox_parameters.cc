#include <fmt/format.h>

#include "models/cogvideox/cogvideox_config.h"
#include "models/parameter_list.h"

namespace sprocket::models {
namespace {

// LayerNorm with its modulation: shift, scale and gate of the video, then of the text.
void add_modulated_norm(ParameterList& list, const std::string& prefix, const CogVideoXConfig& c) {
  list.linear(prefix + ".linear", 6 * c.dim, c.time_dim, InitialRule::kZeros);
  list.layer_norm(prefix + ".norm", c.dim);
}

void add_block(ParameterList& list, const std::string& prefix, const CogVideoXConfig& c) {
  add_modulated_norm(list, prefix + ".norm1", c);
  list.layer_norm(prefix + ".attn1.norm_q", c.head_dim());
  list.layer_norm(prefix + ".attn1.norm_k", c.head_dim());
  for (const char* part : {"to_q", "to_k", "to_v", "to_out.0"}) {
    list.xavier_linear(prefix + ".attn1." + part, c.dim, c.dim);
  }
  add_modulated_norm(list, prefix + ".norm2", c);
  list.xavier_linear(prefix + ".ff.net.0.proj", c.ffn_dim, c.dim);
  list.xavier_linear(prefix + ".ff.net.2", c.dim, c.ffn_dim);
}

void add_patch_projection(ParameterList& list, const CogVideoXConfig& c) {
  std::vector<int64_t> shape{c.dim, c.latent_channels, c.patch.h, c.patch.w};
  if (c.patch.t > 1) shape = {c.dim, c.patch_features()};
  list.add("patch_embed.proj.weight", shape, InitialRule::kXavierUniform);
  list.add("patch_embed.proj.bias", {c.dim}, InitialRule::kZeros);
}

}  // namespace

std::vector<ParameterSpec> cogvideox_parameters(const CogVideoXConfig& c) {
  constexpr double kEmbeddingDeviation = 0.02;
  ParameterList list;
  add_patch_projection(list, c);
  list.xavier_linear("patch_embed.text_proj", c.dim, c.text_dim);
  list.linear("time_embedding.linear_1", c.time_dim, c.dim, InitialRule::kNormal,
              kEmbeddingDeviation);
  list.linear("time_embedding.linear_2", c.time_dim, c.time_dim, InitialRule::kNormal,
              kEmbeddingDeviation);
  for (int i = 0; i < c.layers; ++i) add_block(list, fmt::format("transformer_blocks.{}", i), c);
  list.layer_norm("norm_final", c.dim);
  list.linear("norm_out.linear", 2 * c.dim, c.time_dim, InitialRule::kZeros);
  list.layer_norm("norm_out.norm", c.dim);
  list.linear("proj_out", c.patch_features(), c.dim, InitialRule::kZeros);
  for (int i = 0; c.coarse_gate && i < c.layers; ++i) {
    list.linear(fmt::format("transformer_blocks.{}.attn1.to_gate_compress", i), c.dim, c.dim,
                InitialRule::kZeros);
  }
  for (int i = 0; c.fine_gate && i < c.layers; ++i) {  // 1 everywhere
    const std::string gate = fmt::format("transformer_blocks.{}.attn1.to_gate_fine", i);
    list.add(gate + ".weight", {c.dim, c.dim}, InitialRule::kZeros);
    list.add(gate + ".bias", {c.dim}, InitialRule::kOnes);
  }
  return std::move(list.specs);
}

}  // namespace sprocket::models

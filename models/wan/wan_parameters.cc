#include <cmath>

#include <fmt/format.h>

#include "models/parameter_list.h"
#include "models/wan/wan_config.h"

namespace sprocket::models {
namespace {

void add_attention(ParameterList& list, const std::string& prefix, int64_t dim) {
  for (const char* part : {"q", "k", "v", "o"}) list.xavier_linear(prefix + "." + part, dim, dim);
  list.add(prefix + ".norm_q.weight", {dim}, InitialRule::kOnes);
  list.add(prefix + ".norm_k.weight", {dim}, InitialRule::kOnes);
}

}  // namespace

std::vector<ParameterSpec> wan_parameters(const WanConfig& c) {
  constexpr double kEmbeddingDeviation = 0.02;
  const int64_t dim = c.dim;
  const double modulation_deviation = 1 / std::sqrt(static_cast<double>(dim));
  ParameterList list;
  list.add("patch_embedding.weight", {dim, c.latent_channels, c.patch.t, c.patch.h, c.patch.w},
           InitialRule::kXavierUniform);
  list.add("patch_embedding.bias", {dim}, InitialRule::kZeros);
  list.linear("text_embedding.0", dim, c.text_dim, InitialRule::kNormal, kEmbeddingDeviation);
  list.linear("text_embedding.2", dim, dim, InitialRule::kNormal, kEmbeddingDeviation);
  list.linear("time_embedding.0", dim, c.frequency_dim, InitialRule::kNormal, kEmbeddingDeviation);
  list.linear("time_embedding.2", dim, dim, InitialRule::kNormal, kEmbeddingDeviation);
  list.xavier_linear("time_projection.1", 6 * dim, dim);
  for (int i = 0; i < c.layers; ++i) {
    const std::string block = fmt::format("blocks.{}", i);
    list.add(block + ".modulation", {1, 6, dim}, InitialRule::kNormal, modulation_deviation);
    add_attention(list, block + ".self_attn", dim);
    add_attention(list, block + ".cross_attn", dim);
    list.layer_norm(block + ".norm3", dim);
    list.xavier_linear(block + ".ffn.0", c.ffn_dim, dim);
    list.xavier_linear(block + ".ffn.2", dim, c.ffn_dim);
  }
  list.linear("head.head", c.patch_features(), dim, InitialRule::kZeros);
  list.add("head.modulation", {1, 2, dim}, InitialRule::kNormal, modulation_deviation);
  for (int i = 0; c.coarse_gate && i < c.layers; ++i) {
    list.linear(fmt::format("blocks.{}.self_attn.to_gate_compress", i), dim, dim,
                InitialRule::kZeros);
  }
  for (int i = 0; c.fine_gate && i < c.layers; ++i) {  // 1 everywhere
    const std::string gate = fmt::format("blocks.{}.self_attn.to_gate_fine", i);
    list.add(gate + ".weight", {dim, dim}, InitialRule::kZeros);
    list.add(gate + ".bias", {dim}, InitialRule::kOnes);
  }
  return std::move(list.specs);
}

}  // namespace sprocket::models

#include "models/tensor_names.h"

#include <array>

#include "base/error.h"

namespace sprocket::models {
namespace {

struct Pair {
  std::string_view official, diffusers;
};

// Whole names outside the blocks, without .weight or .bias.
constexpr std::array kOutside{
    Pair{"patch_embedding", "patch_embedding"},
    Pair{"text_embedding.0", "condition_embedder.text_embedder.linear_1"},
    Pair{"text_embedding.2", "condition_embedder.text_embedder.linear_2"},
    Pair{"time_embedding.0", "condition_embedder.time_embedder.linear_1"},
    Pair{"time_embedding.2", "condition_embedder.time_embedder.linear_2"},
    Pair{"time_projection.1", "condition_embedder.time_proj"},
    Pair{"head.head", "proj_out"},
};
constexpr Pair kHeadModulation{"head.modulation", "scale_shift_table"};

// Below blocks.N.
constexpr std::array kModules{
    Pair{"self_attn.q", "attn1.to_q"},
    Pair{"self_attn.k", "attn1.to_k"},
    Pair{"self_attn.v", "attn1.to_v"},
    Pair{"self_attn.o", "attn1.to_out.0"},
    Pair{"self_attn.to_gate_compress", "attn1.to_gate_compress"},
    Pair{"self_attn.to_gate_fine", "attn1.to_gate_fine"},
    Pair{"cross_attn.q", "attn2.to_q"},
    Pair{"cross_attn.k", "attn2.to_k"},
    Pair{"cross_attn.v", "attn2.to_v"},
    Pair{"cross_attn.o", "attn2.to_out.0"},
    Pair{"norm3", "norm2"},
    Pair{"ffn.0", "ffn.net.0.proj"},
    Pair{"ffn.2", "ffn.net.2"},
};
// With a weight and no bias.
constexpr std::array kNorms{
    Pair{"self_attn.norm_q", "attn1.norm_q"},
    Pair{"self_attn.norm_k", "attn1.norm_k"},
    Pair{"cross_attn.norm_q", "attn2.norm_q"},
    Pair{"cross_attn.norm_k", "attn2.norm_k"},
};
constexpr Pair kBlockModulation{"modulation", "scale_shift_table"};

using Side = std::string_view Pair::*;

template <size_t N>
std::optional<std::string> translate(const std::array<Pair, N>& pairs, std::string_view name,
                                     Side from, Side to) {
  for (const Pair& pair : pairs) {
    if (name == pair.*from) return std::string(pair.*to);
  }
  return std::nullopt;
}

// Of a name without the prefix blocks.N.
std::optional<std::string> translate_in_block(std::string_view name, Side from, Side to) {
  if (name == kBlockModulation.*from) return std::string(kBlockModulation.*to);
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const std::string_view module = name.substr(0, dot), kind = name.substr(dot);
  if (kind != ".weight" && kind != ".bias") return std::nullopt;
  auto translated = translate(kModules, module, from, to);
  if (!translated && kind == ".weight") translated = translate(kNorms, module, from, to);
  if (translated) translated->append(kind);
  return translated;
}

std::optional<std::string> translate(std::string_view name, Side from, Side to) {
  constexpr std::string_view kBlocks = "blocks.";
  if (name.starts_with(kBlocks)) {
    const size_t end = name.find_first_not_of("0123456789", kBlocks.size());
    if (end == std::string_view::npos || end == kBlocks.size() || name[end] != '.') {
      return std::nullopt;
    }
    auto rest = translate_in_block(name.substr(end + 1), from, to);
    if (rest) rest->insert(0, name.substr(0, end + 1));
    return rest;
  }
  if (name == kHeadModulation.*from) return std::string(kHeadModulation.*to);
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const std::string_view kind = name.substr(dot);
  if (kind != ".weight" && kind != ".bias") return std::nullopt;
  auto translated = translate(kOutside, name.substr(0, dot), from, to);
  if (translated) translated->append(kind);
  return translated;
}

}  // namespace

const char* name_of(NameScheme scheme) {
  switch (scheme) {
    case NameScheme::kOfficial:
      return "official Wan";
    case NameScheme::kDiffusers:
      return "diffusers";
  }
  return "?";
}

std::optional<std::string> to_diffusers(std::string_view official) {
  return translate(official, &Pair::official, &Pair::diffusers);
}

std::optional<std::string> to_official(std::string_view diffusers) {
  return translate(diffusers, &Pair::diffusers, &Pair::official);
}

NameScheme detect_name_scheme(std::span<const std::string> names, const std::string& where) {
  const std::string* official = nullptr;  // a name that only the official scheme has
  const std::string* diffusers = nullptr;
  for (const std::string& name : names) {
    const bool is_official = to_diffusers(name).has_value();
    const bool is_diffusers = to_official(name).has_value();
    if (is_official && !is_diffusers && !official) official = &name;
    if (is_diffusers && !is_official && !diffusers) diffusers = &name;
  }
  if (official && diffusers) {
    throw InputError(fmt::format(
        "{}: expected tensor names of one scheme, found both official Wan names ({}) and diffusers "
        "names ({})",
        where, *official, *diffusers));
  }
  if (!official && !diffusers) {
    throw InputError(fmt::format(
        "{}: expected a Wan transformer with official names (blocks.0.self_attn.q.weight) or "
        "diffusers names (blocks.0.attn1.to_q.weight), found {}",
        where,
        names.empty() ? "no tensors"
                      : fmt::format("{} tensors such as {}", names.size(), names[0])));
  }
  return official ? NameScheme::kOfficial : NameScheme::kDiffusers;
}

}  // namespace sprocket::models

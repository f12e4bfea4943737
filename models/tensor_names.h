// The two published naming schemes of Wan checkpoints.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace sprocket::models {

enum class NameScheme {
  kOfficial,   // blocks.0.self_attn.q.weight; what the program uses inside
  kDiffusers,  // blocks.0.attn1.to_q.weight
};

const char* name_of(NameScheme scheme);

// The name of the same tensor in the other scheme; nullopt when `name` belongs to no Wan tensor of
// its scheme. The gates of VSA's branches, self_attn.to_gate_compress and
// self_attn.to_gate_fine, are attn1.to_gate_compress and attn1.to_gate_fine in diffusers' style.
std::optional<std::string> to_diffusers(std::string_view official);
std::optional<std::string> to_official(std::string_view diffusers);

// The scheme of a checkpoint by its names. Throws InputError naming `where` (a path) when they fit
// neither scheme or some fit only the one and some only the other.
NameScheme detect_name_scheme(std::span<const std::string> names, const std::string& where);

}  // namespace sprocket::models

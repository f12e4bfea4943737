// Low-rank adapters (LoRA, arXiv 2106.09685) of a model's linear layers.
//
//   y = W x + b + alpha / rank B (A x),   A [rank, in], B [out, rank]
//
// A starts as normal numbers of variance 1 / in, B at zero.
#pragma once

#include <string>
#include <vector>

#include "models/parameter_spec.h"
#include "models/parameter_store.h"

namespace sprocket::models {

// What follows a layer's name in those of its adapter's tensors, as in diffusers and PEFT.
inline constexpr const char* kAdapterDown = ".lora_A.weight";
inline constexpr const char* kAdapterUp = ".lora_B.weight";

struct LoraSpec {
  int rank = 16;
  double alpha = 16;
  // Names of layers, without `.weight`; * stands for anything but a dot.
  std::vector<std::string> targets;
  double factor() const { return alpha / rank; }
};

// What is trained of a model with parameters `base`: an adapter for every layer (a matrix
// `name.weight`) that a target matches, then the gates of VSA's branches, whole, which start at
// what they are in `base`. Throws ConfigError for targets that match nothing and lists layers that
// there are.
std::vector<ParameterSpec> lora_parameters(const std::vector<ParameterSpec>& base,
                                           const LoraSpec& spec);

// The tensors of `trained` that are in `base` too become what they are there.
void copy_shared_tensors(const ParameterStore& base, ParameterStore& trained);

// W + factor B A for every layer that has an adapter, and the other tensors of `trained` in the
// place of those of `base`.
void merge_adapters(const ParameterStore& trained, double factor, ParameterStore& base);

// Whether the layer's name fits the pattern: * stands for anything but a dot.
bool matches_target(const std::string& layer, const std::string& pattern);

}  // namespace sprocket::models

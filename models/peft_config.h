// What PEFT and diffusers write beside adapters: how they are scaled.
#pragma once

#include <optional>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "models/safetensors/safetensors.h"

namespace sprocket::models {

// Of PEFT's LoraConfig what an adapter's tensors do not show.
struct PeftConfig {
  std::string source;  // the file it is from
  double alpha = 0;
  bool rank_stabilised = false;
  // Other alphas, of layers whose whole name fits; the first counts.
  std::vector<std::pair<std::regex, double>> alpha_of_layers;

  // alpha / rank, of rank-stabilised adapters (arXiv 2312.03732) alpha / sqrt(rank). `layer` is the
  // module's name in the model that PEFT adapted.
  double factor(const std::string& layer, int64_t rank) const;
};

// From the metadata of the file (`lora_adapter_metadata`, of diffusers; also with `transformer.`
// before its keys, of the pipelines), or, where names of tensors start with `base_model.model.`,
// from the adapter_config.json beside it. Nothing for files that have neither metadata nor such
// names. Throws InputError when that JSON is missing, damaged or without lora_alpha, or when the
// adapters are not plain ones: of another kind than LORA, or made with changed base weights.
std::optional<PeftConfig> find_peft_config(const safetensors::File& file);

}  // namespace sprocket::models

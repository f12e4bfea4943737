#include "models/lora.h"

#include <cmath>
#include <set>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "models/parameter_list.h"
#include "models/weights_file.h"

namespace sprocket::models {
namespace {

const std::string kWeight = ".weight";

// "" where the tensor is no layer's matrix.
std::string layer_of(const ParameterSpec& spec) {
  if (spec.shape.size() != 2 || !spec.name.ends_with(kWeight)) return {};
  return spec.name.substr(0, spec.name.size() - kWeight.size());
}

// With * for the number of the block: what a person wants to read of hundreds of layers.
std::string kind_of(const std::string& layer) {
  constexpr const char* kDigits = "0123456789";
  const size_t dot = layer.find('.');
  if (dot == std::string::npos) return layer;
  const size_t end = layer.find_first_not_of(kDigits, dot + 1);
  if (end == std::string::npos || end == dot + 1) return layer;
  return layer.substr(0, dot + 1) + "*" + layer.substr(end);
}

}  // namespace

bool matches_target(const std::string& layer, const std::string& pattern) {
  size_t at = 0, next = 0, star = std::string::npos, tried = 0;
  while (at < layer.size()) {
    if (next < pattern.size() && pattern[next] == '*') {
      star = next++;
      tried = at;
    } else if (next < pattern.size() && pattern[next] == layer[at]) {
      ++next;
      ++at;
    } else if (star != std::string::npos && layer[tried] != '.') {
      next = star + 1;
      at = ++tried;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', next) == std::string::npos;
}

std::vector<ParameterSpec> lora_parameters(const std::vector<ParameterSpec>& base,
                                           const LoraSpec& spec) {
  ParameterList list;
  std::set<std::string> unmatched(spec.targets.begin(), spec.targets.end()), kinds;
  for (const ParameterSpec& tensor : base) {
    const std::string layer = layer_of(tensor);
    if (layer.empty() || is_of_gate(tensor.name)) continue;
    kinds.insert(kind_of(layer));
    bool matched = false;
    for (const std::string& target : spec.targets) {
      if (!matches_target(layer, target)) continue;
      unmatched.erase(target);
      matched = true;
    }
    if (!matched) continue;
    const int64_t out = tensor.shape[0], in = tensor.shape[1];
    list.add(layer + kAdapterDown, {spec.rank, in}, InitialRule::kNormal,
             1 / std::sqrt(static_cast<double>(in)));
    list.add(layer + kAdapterUp, {out, spec.rank}, InitialRule::kZeros);
  }
  if (!unmatched.empty()) {
    throw ConfigError(fmt::format("lora.target: no layer is called {}; layers of this model: {}",
                                  fmt::join(unmatched, " or "), fmt::join(kinds, ", ")));
  }
  for (const ParameterSpec& tensor : base) {
    if (is_of_gate(tensor.name)) list.specs.push_back(tensor);
  }
  return std::move(list.specs);
}

void copy_shared_tensors(const ParameterStore& base, ParameterStore& trained) {
  for (int i = 0; i < trained.size(); ++i) {
    const std::string& name = trained.spec(i).name;
    if (base.contains(name)) trained.tensor(i).detach().copy_(base.tensor(name));
  }
}

void merge_adapters(const ParameterStore& trained, double factor, ParameterStore& base) {
  const at::NoGradGuard no_gradients;
  for (int i = 0; i < trained.size(); ++i) {
    const std::string& name = trained.spec(i).name;
    if (base.contains(name)) base.tensor(name).detach().copy_(trained.tensor(i));
    if (!name.ends_with(kAdapterDown)) continue;
    const std::string layer = name.substr(0, name.size() - std::string(kAdapterDown).size());
    base.tensor(layer + kWeight)
        .detach()
        .addmm_(trained.tensor(layer + kAdapterUp), trained.tensor(i), 1, factor);
  }
}

}  // namespace sprocket::models

#include "models/lora_file.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "models/lora.h"
#include "models/peft_config.h"
#include "models/safetensors/safetensors.h"
#include "models/safetensors/writer.h"

namespace sprocket::models {
namespace {

// Before names whose dots have become underscores.
constexpr std::string_view kKohya = "lora_unet_";
constexpr std::string_view kPrefixes[] = {"base_model.model.", "diffusion_model.", "transformer.",
                                          kKohya};
constexpr std::string_view kWritten = "transformer.";
constexpr std::string_view kAlpha = ".alpha";

struct Suffix {
  std::string_view in_file, own;
};
constexpr Suffix kSuffixes[] = {{".lora_A.default.weight", kAdapterDown},
                                {".lora_B.default.weight", kAdapterUp},
                                {".lora_down.weight", kAdapterDown},
                                {".lora_up.weight", kAdapterUp},
                                {kAdapterDown, kAdapterDown},
                                {kAdapterUp, kAdapterUp},
                                {kAlpha, kAlpha}};

// A tensor's name in two parts; `kind` is "" where it belongs to no adapter.
struct Name {
  std::string layer, kind;
};

Name parse(std::string_view name) {
  for (const std::string_view prefix : kPrefixes) {
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  }
  for (const Suffix& suffix : kSuffixes) {
    if (!name.ends_with(suffix.in_file)) continue;
    return {std::string(name.substr(0, name.size() - suffix.in_file.size())),
            std::string(suffix.own)};
  }
  return {std::string(name), ""};
}

// As a name in a file, which is given for weights.
std::string layer_in_file(const std::string& layer, const NameInFile& name_in_file) {
  constexpr std::string_view kWeight = ".weight";
  std::string name = name_in_file(layer + std::string(kWeight));
  return name.substr(0, name.size() - kWeight.size());
}

std::string in_file(const std::string& parameter, const NameInFile& name_in_file) {
  const Name name = parse(parameter);
  return name.kind.empty() ? name_in_file(parameter)
                           : layer_in_file(name.layer, name_in_file) + name.kind;
}

std::string with_underscores(std::string layer) {
  std::replace(layer.begin(), layer.end(), '.', '_');
  return layer;
}

// Our names of the file's tensors, and what does not fit.
struct Matched {
  std::map<std::string, std::string> in_file;  // by parameter
  std::map<std::string, std::string> alphas;   // by layer
  std::vector<std::string> problems;
};

Matched match(const safetensors::File& file, const ParameterStore& trained,
              const NameInFile& name_in_file) {
  std::map<std::string, std::string> known;  // what a file may call it, without prefix
  for (const ParameterSpec& spec : trained.specs()) {
    for (const std::string& name : {spec.name, in_file(spec.name, name_in_file)}) {
      known[name] = spec.name;
      const Name parsed = parse(name);
      known[with_underscores(parsed.layer) + parsed.kind] = spec.name;
    }
  }
  Matched matched;
  for (const safetensors::TensorInfo& tensor : file.tensors()) {
    const std::string& name = tensor.name;
    const Name parsed = parse(name);
    const bool is_alpha = parsed.kind == kAlpha;
    const auto found = known.find(parsed.layer + (is_alpha ? kAdapterDown : parsed.kind));
    if (found == known.end()) {
      matched.problems.push_back(fmt::format("unexpected: {}", name));
    } else if (is_alpha && tensor.elements() != 1) {
      matched.problems.push_back(fmt::format("shape of {}: expected one number, found [{}]", name,
                                             fmt::join(tensor.shape, ", ")));
    } else if (is_alpha) {
      matched.alphas[parse(found->second).layer] = name;
    } else {
      matched.in_file[found->second] = name;
    }
  }
  for (const ParameterSpec& spec : trained.specs()) {
    const auto found = matched.in_file.find(spec.name);
    if (found == matched.in_file.end()) {
      if (is_of_gate(spec.name)) continue;
      matched.problems.push_back(fmt::format("missing: {} of shape [{}]",
                                             in_file(spec.name, name_in_file),
                                             fmt::join(spec.shape, ", ")));
    } else if (file.at(found->second).shape != spec.shape) {
      matched.problems.push_back(fmt::format("shape of {}: expected [{}], found [{}]",
                                             found->second, fmt::join(spec.shape, ", "),
                                             fmt::join(file.at(found->second).shape, ", ")));
    }
  }
  return matched;
}

}  // namespace

void write_adapters(const std::string& path, const ParameterStore& trained, double factor,
                    const NameInFile& name_in_file) {
  std::vector<safetensors::TensorSpec> specs;
  for (const ParameterSpec& spec : trained.specs()) {
    specs.push_back({std::string(kWritten) + in_file(spec.name, name_in_file),
                     safetensors::ElementType::kF32, spec.shape});
  }
  safetensors::Writer writer(path, specs, {{"format", "pt"}});
  for (int i = 0; i < trained.size(); ++i) {
    at::Tensor values = trained.tensor(i).detach().to(at::kCPU, at::kFloat).contiguous();
    if (parse(trained.spec(i).name).kind == kAdapterUp) values = values * factor;
    writer.write(specs[i].name, {static_cast<const std::byte*>(values.const_data_ptr()),
                                 static_cast<size_t>(values.nbytes())});
  }
  writer.close(true);
}

void read_adapters(const std::string& path, double factor, const NameInFile& name_in_file,
                   ParameterStore& trained) {
  const auto file = safetensors::File::open(path);
  const std::optional<PeftConfig> config = find_peft_config(file);
  Matched matched = match(file, trained, name_in_file);
  if (config && !matched.alphas.empty()) {
    matched.problems.push_back(fmt::format("two alphas: {} and that of {}",
                                           matched.alphas.begin()->second, config->source));
  }
  if (!matched.problems.empty()) {
    throw InputError(fmt::format("{} does not fit the adapters of the job, {} problems:\n  {}",
                                 path, matched.problems.size(),
                                 fmt::join(matched.problems, "\n  ")));
  }
  const auto theirs = [&](const std::string& layer, const std::string& name, int64_t rank) {
    const auto alpha = matched.alphas.find(layer);
    if (alpha != matched.alphas.end()) {
      return file.floats(file.at(alpha->second)).at(0) / static_cast<double>(rank);
    }
    return config ? config->factor(parse(name).layer, rank) : 1;
  };
  const at::NoGradGuard no_gradients;
  for (const auto& [parameter, name] : matched.in_file) {
    const std::vector<float> values = file.floats(file.at(name));
    const at::Tensor into = trained.tensor(parameter).detach();
    into.copy_(at::from_blob(const_cast<float*>(values.data()), into.sizes(), at::kFloat));
    const Name parsed = parse(parameter);
    if (parsed.kind == kAdapterUp) into.mul_(theirs(parsed.layer, name, into.size(1)) / factor);
  }
}

}  // namespace sprocket::models

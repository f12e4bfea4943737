#include "models/weights_file.h"

#include <cstring>
#include <set>

#include <ATen/ops/from_blob.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "base/log.h"
#include "models/safetensors/writer.h"

namespace sprocket::models {
namespace {

using safetensors::ElementType;
using safetensors::TensorSet;

constexpr const char* kGates[] = {".to_gate_compress.", ".to_gate_fine."};

// The gate that a tensor belongs to, or null.
const char* gate_of(const std::string& name) {
  for (const char* gate : kGates) {
    if (name.find(gate) != std::string::npos) return gate;
  }
  return nullptr;
}

// Whether a tensor is part of a gate of which the file has nothing.
bool is_of_absent_gate(const TensorSet& set, const std::string& name) {
  const char* gate = gate_of(name);
  return gate &&
         std::none_of(set.names().begin(), set.names().end(), [&](const std::string& other) {
           return other.find(gate) != std::string::npos;
         });
}

bool is_floating(ElementType type) {
  return type == ElementType::kF64 || type == ElementType::kF32 || type == ElementType::kF16 ||
         type == ElementType::kBF16;
}

// What does not fit, one line for each tensor; empty when everything does.
std::vector<std::string> problems_of(const TensorSet& set, const ParameterStore& parameters,
                                     const NameInFile& name_in_file) {
  std::vector<std::string> problems;
  std::set<std::string> expected;
  for (const ParameterSpec& spec : parameters.specs()) {
    if (is_of_absent_gate(set, spec.name)) continue;
    const std::string name = name_in_file(spec.name);
    expected.insert(name);
    if (!set.contains(name)) {
      problems.push_back(
          fmt::format("missing: {} of shape [{}]", name, fmt::join(spec.shape, ", ")));
      continue;
    }
    const auto& info = set.at(name);
    if (info.shape != spec.shape) {
      problems.push_back(fmt::format("shape of {}: expected [{}], found [{}]", name,
                                     fmt::join(spec.shape, ", "), fmt::join(info.shape, ", ")));
    }
    if (!is_floating(info.type)) {
      problems.push_back(fmt::format("type of {}: expected F64, F32, F16 or BF16, found {}", name,
                                     safetensors::name_of(info.type)));
    }
  }
  for (const std::string& name : set.names()) {
    if (!expected.contains(name)) problems.push_back(fmt::format("unexpected: {}", name));
  }
  return problems;
}

void read_tensor(const TensorSet& set, const std::string& name, const at::Tensor& into) {
  const auto& info = set.at(name);
  if (info.type == ElementType::kF64 && into.scalar_type() == at::kDouble && into.is_cpu()) {
    const auto bytes = set.data(name);
    std::memcpy(into.data_ptr(), bytes.data(), bytes.size());
    return;
  }
  const std::vector<float> values = set.floats(name);
  into.copy_(at::from_blob(const_cast<float*>(values.data()), into.sizes(), at::kFloat));
}

}  // namespace

bool is_of_gate(const std::string& name) { return gate_of(name) != nullptr; }

ReadWeights read_weights(const TensorSet& set, const char* scheme, const NameInFile& name_in_file,
                         ParameterStore& parameters) {
  const auto problems = problems_of(set, parameters, name_in_file);
  if (!problems.empty()) {
    throw InputError(fmt::format("{} ({} names) does not fit the model, {} problems:\n  {}",
                                 set.path(), scheme, problems.size(), fmt::join(problems, "\n  ")));
  }
  ReadWeights read;
  for (int i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters.spec(i).name;
    const at::Tensor into = parameters.tensor(i).detach();
    if (is_of_absent_gate(set, name)) {
      into.fill_(parameters.spec(i).rule == InitialRule::kOnes ? 1 : 0);
      ++read.fresh_gates;
    } else {
      read_tensor(set, name_in_file(name), into);
      ++read.tensors;
    }
  }
  if (read.fresh_gates > 0) {
    spdlog::info(
        "{} lacks gates of VSA's branches: {} tensors start so that a coarse gate is 0 and a fine "
        "gate 1",
        set.path(), read.fresh_gates);
  }
  return read;
}

void write_weights(const std::string& path, const ParameterStore& parameters,
                   const NameInFile& name_in_file) {
  const bool wide = parameters.flat_parameters().scalar_type() == at::kDouble;
  std::vector<safetensors::TensorSpec> specs;
  for (const ParameterSpec& spec : parameters.specs()) {
    specs.push_back(
        {name_in_file(spec.name), wide ? ElementType::kF64 : ElementType::kF32, spec.shape});
  }
  safetensors::Writer writer(path, specs, {{"format", "pt"}});
  for (int i = 0; i < parameters.size(); ++i) {
    const at::Tensor tensor = parameters.tensor(i).detach().cpu();
    writer.write(specs[i].name, {static_cast<const std::byte*>(tensor.const_data_ptr()),
                                 static_cast<size_t>(tensor.nbytes())});
  }
  writer.close(true);
}

}  // namespace sprocket::models

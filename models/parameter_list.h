// Makes the list of a model's parameters.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "models/parameter_spec.h"

namespace sprocket::models {

class ParameterList {
 public:
  void add(const std::string& name, std::vector<int64_t> shape, InitialRule rule,
           double scale = 1) {
    specs.push_back({name, std::move(shape), rule, scale});
  }
  // name.weight [out, in] by the rule and name.bias [out], zero.
  void linear(const std::string& name, int64_t out, int64_t in, InitialRule rule,
              double scale = 1) {
    add(name + ".weight", {out, in}, rule, scale);
    add(name + ".bias", {out}, InitialRule::kZeros);
  }
  void xavier_linear(const std::string& name, int64_t out, int64_t in) {
    linear(name, out, in, InitialRule::kXavierUniform);
  }
  // name.weight, ones, and name.bias, zeros: [features] each.
  void layer_norm(const std::string& name, int64_t features) {
    add(name + ".weight", {features}, InitialRule::kOnes);
    add(name + ".bias", {features}, InitialRule::kZeros);
  }

  std::vector<ParameterSpec> specs;
};

}  // namespace sprocket::models

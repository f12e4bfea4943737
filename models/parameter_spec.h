// What a model's tensors are called, their shapes, and how they start. No storage.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sprocket::models {

enum class InitialRule {
  kZeros,
  kOnes,
  kXavierUniform,  // +-sqrt(6 / (fan_in + fan_out)); the first axis is fan_out, the others fan_in
  kNormal,         // standard deviation `scale`
};

struct ParameterSpec {
  std::string name;
  std::vector<int64_t> shape;
  InitialRule rule = InitialRule::kZeros;
  double scale = 1;

  int64_t elements() const {
    int64_t product = 1;
    for (int64_t extent : shape) product *= extent;
    return product;
  }
};

}  // namespace sprocket::models

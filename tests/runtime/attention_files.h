// Inputs and outputs of `sprocket attention` for tests, and what attention under a mask should be.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/safetensors/safetensors.h"

namespace sprocket::testing {

// [B, L, H, D]
struct Extents {
  int64_t b = 1, l = 0, h = 1, d = 1;
  int64_t elements() const { return b * l * h * d; }
  int64_t at(int64_t b_, int64_t l_, int64_t h_) const { return ((b_ * l + l_) * h + h_) * d; }
  std::vector<int64_t> shape() const { return {b, l, h, d}; }
};

struct InputTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<double> values;
  safetensors::ElementType type = safetensors::ElementType::kF64;
};

// Standard normal numbers that depend on the name alone.
InputTensor random_tensor(const std::string& name, const Extents& extents,
                          safetensors::ElementType type = safetensors::ElementType::kF64);
// A path in a folder of this process; nothing is there yet unless a test has put it there.
std::string path_in_test_folder(const std::string& name);
// Writes the tensors there and returns the path.
std::string write_tensors(const std::string& name, const std::vector<InputTensor>& tensors);

// The values of a tensor of any type as double; integers and BOOL too.
std::vector<double> values_of(const safetensors::File& file, const std::string& name);

struct Attention {
  std::vector<double> out, lse;  // [B, L, H, D], [B, H, L]
  std::vector<double> dq, dk, dv;
};
// Attention of every query token to the key tokens whose block its own block selects, in fp64.
// selection: [B, H, N, N]; token_block: [L].
Attention masked_attention(const Extents& extents, const std::vector<double>& q,
                           const std::vector<double>& k, const std::vector<double>& v,
                           const std::vector<double>& grad_out,
                           const std::vector<double>& selection,
                           const std::vector<double>& token_block);

}  // namespace sprocket::testing

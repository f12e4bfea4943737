// What diffusers computed for one case (make_*_case.py), and how results are held against it.
#pragma once

#include <filesystem>
#include <string>

#include <ATen/core/Tensor.h>
#include <nlohmann/json.hpp>

#include "models/safetensors/safetensors.h"

namespace sprocket::models::testing {

class PeerCase {
 public:
  explicit PeerCase(const std::filesystem::path& folder);

  const nlohmann::json& sizes() const { return sizes_; }
  std::string file(const char* name) const { return (folder_ / name).string(); }
  // Of case.safetensors, in fp64.
  at::Tensor tensor(const std::string& name) const;

 private:
  std::filesystem::path folder_;
  safetensors::File file_;
  nlohmann::json sizes_;
};

// Of the whole tensor, relative to the exact one.
double error(const at::Tensor& found, const at::Tensor& exact);

// kernels/gemm.h and kernels/elementwise.h add up to 256 rows in one chain, where LibTorch sums in
// pairs: a random walk of roundings uniform within 2^-24 of the partial sums, whose variance grows
// linearly, errs by 2^-24 sqrt(256 / 2 / 3) = 6.5 * 2^-24 of the result (root mean square).
inline constexpr double kChain = 6.5 * 0x1p-24;

}  // namespace sprocket::models::testing

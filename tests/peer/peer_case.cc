#include "tests/peer/peer_case.h"

#include <cstring>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

namespace sprocket::models::testing {

PeerCase::PeerCase(const std::filesystem::path& folder)
    : folder_(folder),
      file_(safetensors::File::open((folder_ / "case.safetensors").string())),
      sizes_(nlohmann::json::parse(file_.metadata().at("sizes"))) {}

at::Tensor PeerCase::tensor(const std::string& name) const {
  const auto& info = file_.at(name);
  const at::ScalarType type =
      info.type == safetensors::ElementType::kF64 ? at::kDouble : at::kFloat;
  const at::Tensor result = at::empty(info.shape, type);
  const auto bytes = file_.data(info);
  std::memcpy(result.data_ptr(), bytes.data(), bytes.size());
  return result.to(at::kDouble);
}

double error(const at::Tensor& found, const at::Tensor& exact) {
  EXPECT_EQ(found.sizes(), exact.sizes());
  return ((found - exact).norm() / exact.norm()).item<double>();
}

}  // namespace sprocket::models::testing

#include <filesystem>

#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "models/safetensors/writer.h"
#include "models/wan/wan_weights.h"
#include "tests/models/wan_case.h"

namespace sprocket::models::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

WanConfig tiny(bool gate) {
  WanConfig config = small_case().config;
  config.coarse_gate = gate;
  return config;
}

std::string temporary_file(const std::string& name) {
  return (std::filesystem::path(::testing::TempDir()) / ("sprocket_weights_" + name)).string();
}

TEST(ParameterStore, GradientsShareTheFlatBuffer) {
  ParameterStore store(wan_parameters(tiny(true)));
  store.flat_gradients().fill_(2);
  EXPECT_EQ(store.gradient(3).sum().item<double>(), 2.0 * store.spec(3).elements());
  store.tensor(3).sum().backward();
  EXPECT_EQ(store.flat_gradients()[store.offset(3)].item<double>(), 3);
  EXPECT_EQ(store.flat_gradients()[store.offset(4)].item<double>(), 2);
  store.zero_gradients();
  EXPECT_EQ(store.gradient(3).abs().sum().item<double>(), 0);
}

TEST(ParameterStore, InitialValuesFollowTheRules) {
  ParameterStore store(wan_parameters(tiny(true)));
  store.initialise(5);
  const auto largest = [&](const char* name) {
    return store.tensor(name).abs().max().item<double>();
  };
  const auto deviation = [&](const char* name) { return store.tensor(name).std().item<double>(); };
  EXPECT_EQ(largest("head.head.weight"), 0);
  EXPECT_EQ(largest("blocks.0.self_attn.to_gate_compress.weight"), 0);
  EXPECT_EQ(largest("blocks.0.self_attn.q.bias"), 0);
  EXPECT_EQ(store.tensor("blocks.1.norm3.weight").min().item<double>(), 1);
  const double bound = std::sqrt(6.0 / (72 + 72));
  EXPECT_LE(largest("blocks.0.self_attn.q.weight"), bound);
  EXPECT_GE(largest("blocks.0.self_attn.q.weight"), 0.99 * bound);
  // 1,440 normal numbers: their standard deviation is within 5 / sqrt(2 n) = 9 % of the true one.
  EXPECT_NEAR(deviation("text_embedding.0.weight"), 0.02, 0.09 * 0.02);
  EXPECT_NEAR(deviation("blocks.0.modulation"), 1 / std::sqrt(72.0), 0.2 / std::sqrt(72.0));
}

TEST(ParameterStore, InitialValuesDependOnSeedAndIndexOnly) {
  ParameterStore a(wan_parameters(tiny(false))), b(wan_parameters(tiny(true))),
      c(wan_parameters(tiny(false)), at::kDouble);
  a.initialise(5);
  b.initialise(5);
  c.initialise(5);
  for (int i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(a.tensor(i).equal(b.tensor(i))) << a.spec(i).name;
    EXPECT_TRUE(a.tensor(i).to(at::kDouble).equal(c.tensor(i))) << a.spec(i).name;
  }
  b.initialise(6);
  EXPECT_FALSE(a.tensor("time_projection.1.weight").equal(b.tensor("time_projection.1.weight")));
}

TEST(WanWeights, RoundTripInBothSchemes) {
  for (NameScheme scheme : {NameScheme::kOfficial, NameScheme::kDiffusers}) {
    ParameterStore written(wan_parameters(tiny(true))), read(wan_parameters(tiny(true)));
    randomise(written);
    const std::string path = temporary_file("round_trip.safetensors");
    save_wan_weights(path, written, scheme);
    const LoadedWeights loaded = load_wan_weights(path, read);
    EXPECT_EQ(loaded.scheme, scheme);
    EXPECT_EQ(loaded.tensors, written.size());
    EXPECT_EQ(loaded.fresh_gates, 0);
    EXPECT_TRUE(written.flat_parameters().equal(read.flat_parameters()));
    std::filesystem::remove(path);
  }
}

TEST(WanWeights, AMissingGateStartsAtZero) {
  ParameterStore written(wan_parameters(tiny(false))), read(wan_parameters(tiny(true)));
  randomise(written);
  randomise(read);
  const std::string path = temporary_file("no_gate.safetensors");
  save_wan_weights(path, written, NameScheme::kOfficial);
  EXPECT_EQ(load_wan_weights(path, read).fresh_gates, 4);
  EXPECT_EQ(read.tensor("blocks.1.self_attn.to_gate_compress.bias").abs().max().item<double>(), 0);
  std::filesystem::remove(path);
}

TEST(WanWeights, ListsEveryProblemAtOnceAndChangesNothing) {
  ParameterStore store(wan_parameters(tiny(false)));
  const at::Tensor before = store.flat_parameters().clone();
  std::vector<float> zeros(1 << 16);
  std::vector<safetensors::TensorToWrite> tensors;
  for (const ParameterSpec& spec : wan_parameters(tiny(false))) {
    if (spec.name == "blocks.1.ffn.2.bias" || spec.name == "head.modulation") continue;
    auto shape = spec.shape;
    if (spec.name == "blocks.0.modulation") shape = {6, 72};
    tensors.push_back({{spec.name, safetensors::ElementType::kF32, shape},
                       std::as_bytes(std::span(zeros).first(spec.elements()))});
  }
  tensors.push_back({{"blocks.2.modulation", safetensors::ElementType::kF32, {1}},
                     std::as_bytes(std::span(zeros).first(1))});
  const std::string path = temporary_file("problems.safetensors");
  safetensors::write_file(path, tensors);
  try {
    load_wan_weights(path, store);
    FAIL() << "expected an InputError";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr(path), HasSubstr("4 problems"),
                      HasSubstr("missing: blocks.1.ffn.2.bias of shape [72]"),
                      HasSubstr("missing: head.modulation of shape [1, 2, 72]"),
                      HasSubstr("shape of blocks.0.modulation: expected [1, 6, 72], found [6, 72]"),
                      HasSubstr("unexpected: blocks.2.modulation")));
  }
  EXPECT_TRUE(store.flat_parameters().equal(before));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace sprocket::models::testing

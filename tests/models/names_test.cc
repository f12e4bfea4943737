#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "models/tensor_names.h"
#include "models/wan/wan_config.h"

namespace sprocket::models {
namespace {

int64_t elements(const std::vector<ParameterSpec>& specs) {
  int64_t sum = 0;
  for (const auto& spec : specs) sum += spec.elements();
  return sum;
}

WanConfig wan_14b() {
  WanConfig config;
  config.dim = 5120;
  config.ffn_dim = 13824;
  config.heads = 40;
  config.layers = 40;
  return config;
}

TEST(WanParameters, CountsOfThePublishedModels) {
  const auto small = wan_parameters(WanConfig{});
  EXPECT_EQ(small.size(), 825u);
  EXPECT_EQ(elements(small), 1'418'996'800);
  const auto large = wan_parameters(wan_14b());
  EXPECT_EQ(large.size(), 1095u);
  // Per block 8 d^2 + 2 d f + f + 21 d, outside of them 232,719,424.
  EXPECT_EQ(elements(large), 14'288'491'584);
}

TEST(WanParameters, GatesComeLastSoThatTheOthersKeepTheirIndex) {
  WanConfig config;
  const auto without = wan_parameters(config);
  config.coarse_gate = true;
  const auto with = wan_parameters(config);
  ASSERT_EQ(with.size(), without.size() + 60);
  for (size_t i = 0; i < without.size(); ++i) EXPECT_EQ(with[i].name, without[i].name);
  EXPECT_EQ(with.back().name, "blocks.29.self_attn.to_gate_compress.bias");
  EXPECT_EQ(with.back().rule, InitialRule::kZeros);
}

TEST(TensorNames, RoundTripOfEveryTensor) {
  WanConfig config = wan_14b();
  config.coarse_gate = true;
  std::set<std::string> names;
  for (const auto& spec : wan_parameters(config)) {
    const auto diffusers = to_diffusers(spec.name);
    ASSERT_TRUE(diffusers.has_value()) << spec.name;
    EXPECT_TRUE(names.insert(*diffusers).second) << *diffusers;
    EXPECT_EQ(to_official(*diffusers), spec.name);
  }
}

TEST(TensorNames, KnownPairs) {
  EXPECT_EQ(to_diffusers("blocks.7.norm3.bias"), "blocks.7.norm2.bias");
  EXPECT_EQ(to_diffusers("blocks.7.ffn.0.weight"), "blocks.7.ffn.net.0.proj.weight");
  EXPECT_EQ(to_diffusers("head.modulation"), "scale_shift_table");
  EXPECT_EQ(to_diffusers("blocks.12.modulation"), "blocks.12.scale_shift_table");
  EXPECT_EQ(to_official("blocks.0.attn1.to_out.0.bias"), "blocks.0.self_attn.o.bias");
  EXPECT_EQ(to_official("condition_embedder.time_proj.weight"), "time_projection.1.weight");
}

TEST(TensorNames, RefusesWhatIsNoWanTensor) {
  for (const char* name :
       {"", "blocks", "blocks.", "blocks.x.modulation", "blocks.1.", "blocks.1.modulation.weight",
        "blocks.1.self_attn.norm_q.bias", "head.head", "patch_embedding.scale", "norm2.weight",
        "blocks.1.attn1.to_q.weight"}) {
    EXPECT_EQ(to_diffusers(name), std::nullopt) << name;
  }
}

TEST(TensorNames, DetectsTheScheme) {
  const std::vector<std::string> official{"patch_embedding.weight", "blocks.0.self_attn.q.weight"};
  const std::vector<std::string> diffusers{"patch_embedding.weight", "blocks.0.attn1.to_q.weight"};
  EXPECT_EQ(detect_name_scheme(official, "a"), NameScheme::kOfficial);
  EXPECT_EQ(detect_name_scheme(diffusers, "a"), NameScheme::kDiffusers);
  const auto message = [](std::vector<std::string> names) {
    try {
      detect_name_scheme(names, "folder/x.safetensors");
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(message({official[1], diffusers[1]}),
              ::testing::AllOf(::testing::HasSubstr("folder/x.safetensors"),
                               ::testing::HasSubstr("both official Wan names")));
  EXPECT_THAT(message({"encoder.weight"}),
              ::testing::HasSubstr("1 tensors such as encoder.weight"));
  EXPECT_THAT(message({}), ::testing::HasSubstr("found no tensors"));
}

}  // namespace
}  // namespace sprocket::models

// The factors of adapters that PEFT and diffusers wrote, and what is refused. Their own files are
// read in tests/peer/lora_peer_test.cc.
#include "models/peft_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "base/error.h"
#include "models/lora.h"
#include "models/lora_file.h"
#include "models/safetensors/writer.h"
#include "tests/data/temporary_folder.h"

namespace sprocket::models::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class PeftConfigFile : public ::testing::Test {
 protected:
  // A pair of rank 4 for layer "a.b", and what else is given.
  void write(const std::string& prefix, const safetensors::Metadata& metadata,
             std::vector<safetensors::TensorToWrite> more = {}) {
    const std::vector<float> ones(12, 1);
    more.push_back({{prefix + "a.b.lora_A.weight", safetensors::ElementType::kF32, {4, 3}},
                    std::as_bytes(std::span(ones))});
    more.push_back({{prefix + "a.b.lora_B.weight", safetensors::ElementType::kF32, {2, 4}},
                    std::as_bytes(std::span(ones).first(8))});
    safetensors::write_file(path_, more, metadata);
  }

  // Of the elements of B after reading, which are ones in the file.
  float read() {
    ParameterStore trained({{"a.b.lora_A.weight", {4, 3}}, {"a.b.lora_B.weight", {2, 4}}});
    read_adapters(
        path_, 1, [](const std::string& name) { return name; }, trained);
    return trained.tensor("a.b.lora_B.weight").max().item<float>();
  }

  float read_with(const std::string& json) {
    write("", {{"lora_adapter_metadata", json}});
    return read();
  }

  std::string refusal_of(const std::string& json) {
    write("", {{"lora_adapter_metadata", json}});
    return refusal();
  }

  std::string refusal() {
    try {
      read();
    } catch (const InputError& error) {
      return error.what();
    }
    return "no InputError";
  }

  const sprocket::testing::TemporaryFolder folder_;
  const std::string path_ = (folder_.path() / "adapters.safetensors").string();
  const std::string config_ = (folder_.path() / "adapter_config.json").string();
};

TEST_F(PeftConfigFile, FactorIsAlphaOverRank) {
  write("", {});
  EXPECT_EQ(read(), 1);
  EXPECT_EQ(read_with(R"({"lora_alpha": 10, "r": 4})"), 2.5f);
  EXPECT_EQ(read_with(R"({"transformer.lora_alpha": 2, "text_encoder.lora_alpha": 7})"), 0.5f);
  EXPECT_EQ(read_with(R"({"lora_alpha": 10, "use_rslora": true})"), 5);
}

TEST_F(PeftConfigFile, PatternsAreOfWholeNamesOrOfWhatFollowsADot) {
  const auto with = [&](const std::string& pattern) {
    return read_with(R"({"lora_alpha": 4, "alpha_pattern": {")" + pattern + R"(": 12}})");
  };
  EXPECT_EQ(with("a.b"), 3);
  EXPECT_EQ(with("b"), 3);
  EXPECT_EQ(with("^a.b"), 3);
  EXPECT_EQ(with("[ab]"), 3);
  EXPECT_EQ(with("a"), 1);
  EXPECT_EQ(with("a.bc"), 1);
}

TEST_F(PeftConfigFile, OfPeftLiesBesideTheFile) {
  write("base_model.model.", {});
  EXPECT_THAT(refusal(), AllOf(HasSubstr(config_), HasSubstr("No such file"), HasSubstr("alpha")));
  std::ofstream(config_) << R"({"lora_alpha": 10, "peft_type": "LORA"})";
  EXPECT_EQ(read(), 2.5f);
  // It is of no other program's file.
  write("transformer.", {});
  EXPECT_EQ(read(), 1);
}

TEST_F(PeftConfigFile, WhatIsRefused) {
  EXPECT_THAT(refusal_of("{"), AllOf(HasSubstr(path_), HasSubstr("is not valid JSON")));
  EXPECT_THAT(refusal_of(R"({"lora_alpha": )" + std::string(1'000'000, '[')),
              HasSubstr("expected at most 64 levels"));
  EXPECT_THAT(refusal_of("[1]"), HasSubstr("expected an object, found array"));
  EXPECT_THAT(refusal_of("{}"), HasSubstr("lora_alpha: expected a number, found null"));
  EXPECT_THAT(refusal_of(R"({"lora_alpha": "4"})"), HasSubstr("expected a number, found \"4\""));
  EXPECT_THAT(refusal_of(R"({"lora_alpha": 4, "peft_type": "LOHA"})"),
              HasSubstr("peft_type: expected \"LORA\", found \"LOHA\""));
  EXPECT_THAT(refusal_of(R"({"lora_alpha": 4, "init_lora_weights": "pissa_niter_4"})"),
              AllOf(HasSubstr("init_lora_weights"), HasSubstr("found \"pissa_niter_4\"")));
  EXPECT_EQ(read_with(R"({"lora_alpha": 4, "init_lora_weights": "gaussian"})"), 1);
  EXPECT_THAT(refusal_of(R"({"lora_alpha": 4, "use_rslora": 1})"),
              HasSubstr("use_rslora: expected true or false, found 1"));
  EXPECT_THAT(refusal_of(R"({"lora_alpha": 4, "alpha_pattern": {"(": 4}})"),
              HasSubstr("expected a regular expression, found \"(\""));
}

TEST_F(PeftConfigFile, AlphasAreOneNumberFromOnePlace) {
  const std::vector<float> alphas = {8, 8};
  const auto alpha = [&](std::vector<int64_t> shape, size_t count) {
    return safetensors::TensorToWrite{{"a.b.alpha", safetensors::ElementType::kF32, shape},
                                      std::as_bytes(std::span(alphas).first(count))};
  };
  write("", {}, {alpha({1}, 1)});
  EXPECT_EQ(read(), 2);
  write("", {}, {alpha({2}, 2)});
  EXPECT_THAT(refusal(), HasSubstr("shape of a.b.alpha: expected one number, found [2]"));
  write("", {{"lora_adapter_metadata", R"({"lora_alpha": 4})"}}, {alpha({}, 1)});
  EXPECT_THAT(refusal(), AllOf(HasSubstr("two alphas"), HasSubstr("a.b.alpha")));
}

}  // namespace
}  // namespace sprocket::models::testing

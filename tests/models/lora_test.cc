// Adapters: which layers get one, that they are what merged weights are, their files.
#include "models/lora.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include <ATen/TensorOperators.h>

#include "base/error.h"
#include "models/cogvideox/cogvideox_config.h"
#include "models/lora_file.h"
#include "models/safetensors/writer.h"
#include "models/tensor_names.h"
#include "tests/comm/thread_ranks.h"
#include "tests/data/temporary_folder.h"
#include "tests/models/wan_case.h"

namespace sprocket::models::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

LoraSpec spec_of(std::vector<std::string> targets) { return {3, 6, std::move(targets)}; }

std::string diffusers_name(const std::string& official) { return *to_diffusers(official); }

TEST(LoraTarget, StarsStopAtDots) {
  EXPECT_TRUE(matches_target("blocks.12.ffn.0", "blocks.*.ffn.0"));
  EXPECT_TRUE(matches_target("blocks.12.ffn.0", "blocks.12.ffn.0"));
  EXPECT_TRUE(matches_target("blocks.1.self_attn.q", "blocks.*.*_attn.q"));
  EXPECT_TRUE(matches_target("blocks.1.self_attn.q", "blocks.*.self_attn.*"));
  EXPECT_FALSE(matches_target("blocks.1.self_attn.q", "blocks.*.q"));
  EXPECT_FALSE(matches_target("blocks.1.self_attn.q", "blocks.*"));
  EXPECT_FALSE(matches_target("blocks.1.self_attn.q", "blocks.*.self_attn"));
  EXPECT_FALSE(matches_target("blocks.1.self_attn.qk", "blocks.*.self_attn.q"));
  EXPECT_FALSE(matches_target("head.head", ""));
}

TEST(LoraParameters, AreAPairForEveryLayerThatATargetMatches) {
  WanConfig config = small_case().config;
  config.coarse_gate = false;
  const auto specs =
      lora_parameters(wan_parameters(config), spec_of({"blocks.*.self_attn.q", "blocks.1.ffn.*"}));
  std::vector<std::string> names;
  for (const ParameterSpec& spec : specs) names.push_back(spec.name);
  EXPECT_EQ(names, (std::vector<std::string>{
                       "blocks.0.self_attn.q.lora_A.weight", "blocks.0.self_attn.q.lora_B.weight",
                       "blocks.1.self_attn.q.lora_A.weight", "blocks.1.self_attn.q.lora_B.weight",
                       "blocks.1.ffn.0.lora_A.weight", "blocks.1.ffn.0.lora_B.weight",
                       "blocks.1.ffn.2.lora_A.weight", "blocks.1.ffn.2.lora_B.weight"}));
  EXPECT_EQ(specs[6].shape, (std::vector<int64_t>{3, 80}));
  EXPECT_EQ(specs[7].shape, (std::vector<int64_t>{72, 3}));
  EXPECT_EQ(specs[7].rule, InitialRule::kZeros);
}

TEST(LoraParameters, GatesAreTrainedWhole) {
  const auto specs =
      lora_parameters(wan_parameters(small_case().config), spec_of({"blocks.*.self_attn.*"}));
  // Two blocks of four adapters, and a gate of weight and bias in each.
  ASSERT_EQ(specs.size(), 2u * 4 * 2 + 2 * 2);
  EXPECT_EQ(specs[16].name, "blocks.0.self_attn.to_gate_compress.weight");
}

TEST(LoraParameters, ATargetThatMatchesNothingIsRefused) {
  try {
    lora_parameters(wan_parameters(small_case().config),
                    spec_of({"blocks.*.ffn.0", "blocks.*.attn1.to_q", "blocks.7.ffn.0"}));
    FAIL() << "expected a ConfigError";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("blocks.*.attn1.to_q or blocks.7.ffn.0"),
                                    HasSubstr("blocks.*.self_attn.q"),
                                    HasSubstr("time_projection.1"), HasSubstr("head.head")));
  }
}

// Every linear layer there is, those outside the blocks too.
std::vector<std::string> all_layers(const std::vector<ParameterSpec>& specs) {
  std::vector<std::string> layers;
  for (const ParameterSpec& spec : specs) {
    const bool matrix = spec.shape.size() == 2 && spec.name.ends_with(".weight");
    if (matrix && !is_of_gate(spec.name)) {
      layers.push_back(spec.name.substr(0, spec.name.size() - 7));
    }
  }
  return layers;
}

class Lora : public ::testing::Test {
 protected:
  WanCase case_ = small_case();
  WanInputs inputs_ = small_inputs(case_);
  std::vector<ParameterSpec> specs_ = wan_parameters(case_.config);
  LoraSpec lora_ = spec_of(all_layers(specs_));
  ParameterStore base_{specs_, at::kDouble, at::kCPU, ParameterStore::Copies::kNone,
                       ParameterStore::Use::kFrozen};
  ParameterStore trained_{lora_parameters(specs_, lora_), at::kDouble};

  void SetUp() override {
    case_.spec.method = parallel::MethodKind::kVsa;
    case_.spec.vsa.sparsity = Decimal::parse("0.5");
    randomise(base_);
    randomise(trained_);
  }
};

TEST_F(Lora, IsWhatMergedWeightsAre) {
  ParameterStore merged(specs_, at::kDouble);
  merged.flat_parameters().copy_(base_.flat_parameters());
  merge_adapters(trained_, lora_.factor(), merged);
  const at::Tensor before = base_.flat_parameters().clone();
  comm::testing::run_ranks(1, [&](comm::Communicator& world) {
    const WanResult whole = run_wan(case_, inputs_, merged, world);
    const WanResult own =
        run_wan(case_, inputs_, {base_, &trained_, lora_.factor()}, trained_, world);
    EXPECT_LE((whole.velocity_BLF - own.velocity_BLF).abs().max().item<double>(), 1e-12);
    // d/dA = factor B^T dW, d/dB = factor dW A^T; a gate's gradient is its own.
    for (const std::string& layer : lora_.targets) {
      const at::Tensor dw = merged.gradient(merged.index_of(layer + ".weight"));
      const auto gradient = [&](const char* kind) {
        return trained_.gradient(trained_.index_of(layer + kind));
      };
      const at::Tensor down = trained_.tensor(layer + kAdapterDown),
                       up = trained_.tensor(layer + kAdapterUp);
      const double scale = dw.abs().max().item<double>();
      EXPECT_GT(scale, 0) << layer;
      EXPECT_LE(
          (gradient(kAdapterDown) - lora_.factor() * up.t().mm(dw)).abs().max().item<double>(),
          1e-11 * scale)
          << layer;
      EXPECT_LE(
          (gradient(kAdapterUp) - lora_.factor() * dw.mm(down.t())).abs().max().item<double>(),
          1e-11 * scale)
          << layer;
    }
    const std::string gate = "blocks.1.self_attn.to_gate_compress.weight";
    const at::Tensor expected = merged.gradient(merged.index_of(gate)),
                     found = trained_.gradient(trained_.index_of(gate));
    EXPECT_LE((expected - found).abs().max().item<double>(),
              1e-11 * expected.abs().max().item<double>());
  });
  EXPECT_TRUE(base_.flat_parameters().equal(before));
  EXPECT_FALSE(base_.flat_gradients().defined());
}

TEST_F(Lora, FreshAdaptersChangeNothing) {
  ParameterStore whole(specs_, at::kDouble);
  whole.flat_parameters().copy_(base_.flat_parameters());
  trained_.initialise(3);
  copy_shared_tensors(base_, trained_);
  comm::testing::run_ranks(1, [&](comm::Communicator& world) {
    const WanResult expected = run_wan(case_, inputs_, whole, world);
    const WanResult own =
        run_wan(case_, inputs_, {base_, &trained_, lora_.factor()}, trained_, world);
    EXPECT_TRUE(expected.velocity_BLF.equal(own.velocity_BLF));
  });
  EXPECT_GT(trained_.tensor("blocks.0.ffn.0.lora_A.weight").abs().max().item<double>(), 0);
}

// Nothing before the first block is trained: a block that is computed again must know that its own
// adapters are.
TEST_F(Lora, CheckpointedBlocksTrainTheirAdapters) {
  const LoraSpec few = spec_of({"blocks.*.ffn.0"});
  at::Tensor gradients[2];
  for (const bool checkpoint : {false, true}) {
    ParameterStore trained(lora_parameters(specs_, few), at::kDouble);
    randomise(trained);
    WanCase c = case_;
    c.compute.checkpoint_blocks = checkpoint;
    comm::testing::run_ranks(1, [&](comm::Communicator& world) {
      gradients[checkpoint] =
          run_wan(c, inputs_, {base_, &trained, few.factor()}, trained, world).gradients;
    });
    for (int i = 0; i < trained.size(); ++i) {
      EXPECT_GT(trained.gradient(i).abs().max().item<double>(), 0) << trained.spec(i).name;
    }
  }
  EXPECT_TRUE(gradients[0].equal(gradients[1]));
}

class LoraFile : public ::testing::Test {
 protected:
  std::vector<ParameterSpec> specs_ = lora_parameters(
      wan_parameters(small_case().config), spec_of({"blocks.*.self_attn.q", "blocks.*.ffn.0"}));
  ParameterStore written_{specs_}, read_{specs_};
  const sprocket::testing::TemporaryFolder folder_;
  const std::string path_ = (folder_.path() / "adapters.safetensors").string();

  void SetUp() override { randomise(written_); }

  // As other programs may write them, from the names of `written_`.
  void write_as(const std::function<std::string(const std::string&)>& rename, float alpha) {
    std::vector<safetensors::TensorToWrite> tensors;
    for (int i = 0; i < written_.size(); ++i) {
      const at::Tensor tensor = written_.tensor(i).detach();
      tensors.push_back(
          {{rename(specs_[i].name), safetensors::ElementType::kF32, specs_[i].shape},
           {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}});
    }
    const std::vector<float> alphas = {alpha};
    if (alpha > 0) {
      tensors.push_back(
          {{"diffusion_model.blocks.1.ffn.0.alpha", safetensors::ElementType::kF32, {}},
           std::as_bytes(std::span(alphas))});
    }
    safetensors::write_file(path_, tensors);
  }
};

TEST_F(LoraFile, RoundTrip) {
  write_adapters(path_, written_, 2, diffusers_name);
  const auto set = safetensors::TensorSet::open(path_);
  EXPECT_TRUE(set.contains("transformer.blocks.1.attn1.to_q.lora_A.weight"));
  EXPECT_TRUE(set.contains("transformer.blocks.1.ffn.net.0.proj.lora_B.weight"));
  EXPECT_TRUE(set.contains("transformer.blocks.0.attn1.to_gate_compress.weight"));
  read_adapters(path_, 2, diffusers_name, read_);
  EXPECT_TRUE(written_.flat_parameters().equal(read_.flat_parameters()));
  // The same function for a job with another alpha.
  read_adapters(path_, 0.5, diffusers_name, read_);
  EXPECT_TRUE((written_.tensor("blocks.1.ffn.0.lora_B.weight") * 4)
                  .equal(read_.tensor("blocks.1.ffn.0.lora_B.weight")));
}

TEST_F(LoraFile, OfOtherPrograms) {
  write_as(
      [](std::string name) {
        const auto replace = [&](const std::string& from, const std::string& to) {
          if (const size_t at = name.find(from); at != std::string::npos) {
            name.replace(at, from.size(), to);
          }
        };
        replace("lora_A", "lora_down");
        replace("lora_B", "lora_up");
        return "diffusion_model." + name;
      },
      /*alpha=*/1.5);
  read_adapters(path_, 1, diffusers_name, read_);
  EXPECT_TRUE(written_.tensor("blocks.1.self_attn.q.lora_B.weight")
                  .equal(read_.tensor("blocks.1.self_attn.q.lora_B.weight")));
  // alpha / rank = 1.5 / 3.
  EXPECT_TRUE((written_.tensor("blocks.1.ffn.0.lora_B.weight") * 0.5)
                  .equal(read_.tensor("blocks.1.ffn.0.lora_B.weight")));
}

TEST_F(LoraFile, ListsEveryProblemAndChangesNothing) {
  write_adapters(path_, written_, 1, diffusers_name);
  ParameterStore other(lora_parameters(wan_parameters(small_case().config),
                                       spec_of({"blocks.*.ffn.0", "blocks.*.ffn.2"})));
  try {
    read_adapters(path_, 1, diffusers_name, other);
    FAIL() << "expected an InputError";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr(path_), HasSubstr("8 problems"),
                      HasSubstr("unexpected: transformer.blocks.0.attn1.to_q.lora_A.weight"),
                      HasSubstr("missing: blocks.1.ffn.net.2.lora_B.weight of shape [72, 3]")));
  }
  EXPECT_EQ(other.flat_parameters().abs().max().item<double>(), 0);
}

}  // namespace
}  // namespace sprocket::models::testing

// Parts of the CogVideoX model by themselves; the whole is held against diffusers in tests/peer.
#include <cmath>
#include <filesystem>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "base/error.h"
#include "models/autograd/norms.h"
#include "models/autograd/rotation.h"
#include "models/cogvideox/cogvideox_weights.h"
#include "models/cogvideox/positions.h"
#include "tests/models/cogvideox_case.h"

namespace sprocket::models::testing {
namespace {

using ::testing::HasSubstr;

int64_t elements(const std::vector<ParameterSpec>& specs) {
  int64_t sum = 0;
  for (const auto& spec : specs) sum += spec.elements();
  return sum;
}

CogVideoXConfig cogvideox_5b() {
  CogVideoXConfig config;
  config.dim = 3072;
  config.heads = 48;
  config.layers = 42;
  config.ffn_dim = 12288;
  config.positions = CogVideoXPositions::kScaledRope;
  return config;
}

// Counted on diffusers' modules of the published configurations.
TEST(CogVideoXParameters, CountsOfThePublishedModels) {
  const auto small = cogvideox_parameters(CogVideoXConfig{});
  EXPECT_EQ(small.size(), 736u);
  EXPECT_EQ(elements(small), 1'693'783'872);
  CogVideoXConfig config = cogvideox_5b();
  EXPECT_EQ(cogvideox_parameters(config).size(), 1024u);
  EXPECT_EQ(elements(cogvideox_parameters(config)), 5'570'283'072);
  config.patch.t = 2;
  EXPECT_EQ(elements(cogvideox_parameters(config)), 5'570'676'352);
}

TEST(CogVideoXParameters, GatesComeLastSoThatTheOthersKeepTheirIndex) {
  CogVideoXConfig config;
  const auto without = cogvideox_parameters(config);
  config.coarse_gate = config.fine_gate = true;
  const auto with = cogvideox_parameters(config);
  ASSERT_EQ(with.size(), without.size() + 120);
  for (size_t i = 0; i < without.size(); ++i) EXPECT_EQ(with[i].name, without[i].name);
  EXPECT_EQ(with.back().name, "transformer_blocks.29.attn1.to_gate_fine.bias");
  EXPECT_EQ(with.back().rule, InitialRule::kOnes);
}

std::vector<double> line(double first, double last, int count) {
  std::vector<double> points;
  for (int i = 0; i < count; ++i) points.push_back(first + (last - first) * i / (count - 1));
  return points;
}

void expect_near(const std::vector<double>& found, const std::vector<double>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-13) << i;
}

// Margins and extents as diffusers' pipeline cuts them for a base of 30 x 45.
TEST(CogVideoXPositions, AreFittedIntoTheBase) {
  const auto same = fitted_positions(30, 45, 30, 45);
  expect_near(same.h, whole_positions(30));
  expect_near(same.w, whole_positions(45));
  const auto wide = fitted_positions(20, 45, 30, 45);
  expect_near(wide.h, line(5, 25 * 19. / 20, 20));
  expect_near(wide.w, whole_positions(45));
  const auto tall = fitted_positions(45, 30, 30, 45);  // a margin of 12.5, to even
  expect_near(tall.h, line(0, 30 * 44. / 45, 45));
  expect_near(tall.w, line(12, 32 * 29. / 30, 30));
  const auto square = fitted_positions(40, 40, 30, 45);  // of 7.5
  expect_near(square.w, line(8, 38 * 39. / 40, 40));
  EXPECT_EQ(fitted_positions(1, 1, 30, 45).w, std::vector<double>{8});
}

TEST(CogVideoXPositions, SinusoidsAreOfTimeThenWidthThenHeight) {
  CogVideoXCase c = small_cogvideox(CogVideoXPositions::kSinusoids);
  c.config.dim = 32;
  const auto layout = parallel::make_token_layout(c.layout);
  const int64_t first = layout.prefix_tokens() + 5, count = 40;
  const at::Tensor table = sinusoid_positions(c.config, layout, first, count, at::kDouble);
  ASSERT_EQ(table.sizes(), at::IntArrayRef({count, 32}));
  for (int64_t row = 0; row < count; ++row) {
    const auto p = layout.position(first + row);
    const auto at = [&](int64_t column) { return table[row][column].item<double>(); };
    EXPECT_NEAR(at(1), std::sin(p[0] * std::pow(10000, -1. / 4)), 1e-14);
    EXPECT_NEAR(at(4), std::cos(p[0]), 1e-14);
    EXPECT_NEAR(at(8), std::sin(p[2] / 1.875), 1e-14);
    EXPECT_NEAR(at(14 + 5), std::cos(p[2] / 1.875 * std::pow(10000, -5. / 6)), 1e-14);
    EXPECT_NEAR(at(20 + 2), std::sin(p[1] / 1.875 * std::pow(10000, -2. / 6)), 1e-14);
  }
}

TEST(CogVideoXPositions, TextDoesNotTurn) {
  const CogVideoXCase c = small_cogvideox(CogVideoXPositions::kRope);
  const auto layout = parallel::make_token_layout(c.layout);
  const RopeTables rope = cogvideox_rope(c.config, layout, 31, 30, at::kDouble);
  const int64_t text = layout.prefix_tokens() - 31;
  EXPECT_TRUE(rope.cos.narrow(0, 0, text).eq(1).all().item<bool>());
  EXPECT_TRUE(rope.sin.narrow(0, 0, text).eq(0).all().item<bool>());
  for (int64_t row = text; row < 30; ++row) {  // 2, 3 and 3 of 8 pairs
    const auto p = layout.position(31 + row);
    const auto angle = [&](int64_t pair) {
      return std::atan2(rope.sin[row][pair].item<double>(), rope.cos[row][pair].item<double>());
    };
    const auto wrapped = [](double x) { return std::remainder(x, 2 * M_PI); };
    EXPECT_NEAR(angle(1), wrapped(p[0] * std::pow(10000, -.5)), 1e-13);
    EXPECT_NEAR(angle(2), wrapped(p[1]), 1e-13);
    EXPECT_NEAR(angle(7), wrapped(p[2] * std::pow(10000, -2. / 3)), 1e-13);
  }
}

// Value and gradients of ours and of LibTorch's own operations, relative to the largest.
void expect_equal_with_gradients(const std::function<at::Tensor()>& ours,
                                 const std::function<at::Tensor()>& reference,
                                 const std::vector<at::Tensor>& inputs) {
  const at::Tensor a = ours(), b = reference();
  EXPECT_LE((a - b).abs().max().item<double>(), 1e-13);
  const at::Tensor cotangent = random_tensor(a.sizes(), 801, at::kDouble);
  const auto found = torch::autograd::grad({a}, inputs, {cotangent});
  const auto expected = torch::autograd::grad({b}, inputs, {cotangent});
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_LE((found[i] - expected[i]).abs().max().item<double>(),
              1e-12 * (1 + expected[i].abs().max().item<double>()))
        << "input " << i;
  }
}

at::Tensor leaf(at::IntArrayRef shape, uint64_t stream) {
  return random_tensor(shape, stream, at::kDouble).requires_grad_(true);
}

TEST(CogVideoXAutograd, RotationOfHeads) {
  const CogVideoXCase c = small_cogvideox(CogVideoXPositions::kRope);
  const auto layout = parallel::make_token_layout(c.layout);
  const RopeTables rope = cogvideox_rope(c.config, layout, 31, 30, at::kDouble);
  const at::Tensor x = leaf({2, 30, 6, 16}, 802);
  expect_equal_with_gradients(
      [&] { return rotate_heads(x, rope, at::kDouble, {}); },
      [&] {
        const at::Tensor pairs = x.unflatten(3, {8, 2});
        const at::Tensor a = pairs.select(4, 0), b = pairs.select(4, 1);
        const at::Tensor cos = rope.cos.unsqueeze(1), sin = rope.sin.unsqueeze(1);
        return at::stack({a * cos - b * sin, a * sin + b * cos}, 4).flatten(3);
      },
      {x});
}

TEST(CogVideoXAutograd, LayerNormScaled) {
  const at::Tensor x = leaf({2, 70, 9}, 803), shift = leaf({2, 9}, 804), scale = leaf({2, 9}, 805);
  expect_equal_with_gradients(
      [&] { return layer_norm_scaled(x, shift, scale, 1e-5, at::kDouble, {}); },
      [&] {
        return at::layer_norm(x, {9}, {}, {}, 1e-5) * scale.unsqueeze(1) + shift.unsqueeze(1);
      },
      {x, shift, scale});
}

TEST(CogVideoXWeights, RoundTripAndFreshGates) {
  CogVideoXConfig config = small_cogvideox(CogVideoXPositions::kSinusoids).config;
  config.coarse_gate = false;
  ParameterStore written(cogvideox_parameters(config)), read(cogvideox_parameters(config));
  randomise(written);
  const std::string path =
      (std::filesystem::path(::testing::TempDir()) / "sprocket_cogvideox.safetensors").string();
  save_cogvideox_weights(path, written);
  EXPECT_EQ(load_cogvideox_weights(path, read).tensors, written.size());
  EXPECT_TRUE(written.flat_parameters().equal(read.flat_parameters()));

  config.coarse_gate = true;
  ParameterStore gated(cogvideox_parameters(config));
  randomise(gated);
  EXPECT_EQ(load_cogvideox_weights(path, gated).fresh_gates, 4);
  EXPECT_EQ(
      gated.tensor("transformer_blocks.1.attn1.to_gate_compress.weight").abs().max().item<double>(),
      0);

  config.layers = 1;  // another model
  ParameterStore other(cogvideox_parameters(config));
  try {
    load_cogvideox_weights(path, other);
    FAIL() << "expected an InputError";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("unexpected: transformer_blocks.1.attn1.norm_q.bias"));
  }
  std::filesystem::remove(path);
}

// Every block starts as the identity and the prediction as zero.
TEST(CogVideoXParameters, AFreshModelPredictsZero) {
  const CogVideoXCase c = small_cogvideox(CogVideoXPositions::kScaledRope);
  ParameterStore store(cogvideox_parameters(c.config), at::kDouble);
  store.initialise(3);
  EXPECT_EQ(store.tensor("transformer_blocks.1.norm1.linear.weight").abs().max().item<double>(), 0);
  EXPECT_GT(store.tensor("transformer_blocks.1.attn1.to_q.weight").abs().max().item<double>(), 0);
  EXPECT_EQ(
      run_cogvideox_alone(c, small_inputs(c), store).prediction_BLF.abs().max().item<double>(), 0);
}

}  // namespace
}  // namespace sprocket::models::testing

// Every autograd function in fp64: gradients against finite differences and against the same
// formula written with LibTorch's own differentiable operations.
#include <functional>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "models/autograd/checkpoint.h"
#include "models/autograd/cross_attention.h"
#include "models/autograd/linear.h"
#include "models/autograd/norms.h"
#include "models/wan/rope.h"
#include "tests/models/wan_case.h"

namespace sprocket::models::testing {
namespace {

using Tensors = std::vector<at::Tensor>;
using Function = std::function<at::Tensor(const Tensors&)>;

const OpContext kOp{nullptr, -1, 2};
constexpr double kEps = 1e-6;

Tensors leaves(const std::vector<std::vector<int64_t>>& shapes,
               at::ScalarType dtype = at::kDouble) {
  Tensors result;
  for (const auto& shape : shapes) {
    result.push_back(random_tensor(shape, 500 + result.size(), dtype).requires_grad_(true));
  }
  return result;
}

Tensors gradients(const Function& f, const Tensors& inputs, at::Tensor* value = nullptr) {
  const at::Tensor y = f(inputs);
  if (value) *value = y.detach();
  return torch::autograd::grad({y}, inputs, {random_tensor(y.sizes(), 600, y.scalar_type())});
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.numel() == 0) return 0;
  return (a - b).abs().max().item<double>() / (1 + b.abs().max().item<double>());
}

// Central differences with step h err by h^2/6 of the third derivative and 1e-16/h of rounding:
// with h = 1e-5 both are below 1e-9 for the O(1) values here, summed over the outputs below 1e-7.
void check(const Function& ours, const Function& reference, const Tensors& inputs) {
  at::Tensor value, expected_value;
  const Tensors found = gradients(ours, inputs, &value);
  const Tensors expected = gradients(reference, inputs, &expected_value);
  EXPECT_LE(difference(value, expected_value), 1e-13);
  const at::Tensor cotangent = random_tensor(value.sizes(), 600, at::kDouble);
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_LE(difference(found[i], expected[i]), 1e-12) << "input " << i;
    const at::Tensor flat = inputs[i].detach().view({-1});
    const double h = 1e-5;
    // A spread of elements is enough beside the exact comparison.
    for (int64_t e = 0; e < flat.numel(); e += std::max<int64_t>(1, flat.numel() / 7)) {
      const double x = flat[e].item<double>();
      const auto loss_at = [&](double where) {
        flat[e].fill_(where);
        return (ours(inputs) * cotangent).sum().item<double>();
      };
      const double slope = (loss_at(x + h) - loss_at(x - h)) / (2 * h);
      flat[e].fill_(x);
      EXPECT_NEAR(found[i].contiguous().view({-1})[e].item<double>(), slope, 1e-6)
          << "input " << i << " element " << e;
    }
  }
}

TEST(Autograd, Linear) {
  check(
      [](const Tensors& x) {
        return linear(x[0], {x[1], x[2]}, kOp);
      },
      [](const Tensors& x) { return at::linear(x[0], x[1], x[2]); },
      leaves({{2, 5, 7}, {4, 7}, {4}}));
}

TEST(Autograd, GeluLinear) {
  check(
      [](const Tensors& x) {
        return gelu_linear(x[0], {x[1], x[2]}, kOp);
      },
      [](const Tensors& x) { return at::linear(at::gelu(x[0], "tanh"), x[1], x[2]); },
      leaves({{2, 5, 7}, {4, 7}, {4}}));
}

// The formula of models/lora.h by LibTorch's operators.
at::Tensor with_adapter(const at::Tensor& x, const Tensors& p, double factor) {
  return at::linear(x, p[1], p[2]) + factor * at::linear(at::linear(x, p[3]), p[4]);
}

const std::vector<std::vector<int64_t>> kAdapterShapes = {{2, 9, 7}, {4, 7}, {4}, {3, 7}, {4, 3}};

Affine adapted(const Tensors& p, double factor) {
  return {p[1], p[2], {}, {}, {p[3], p[4], {}, {}, factor}};
}

TEST(Autograd, LinearWithAnAdapter) {
  check([](const Tensors& x) { return linear(x[0], adapted(x, 0.5), kOp); },
        [](const Tensors& x) { return with_adapter(x[0], x, 0.5); }, leaves(kAdapterShapes));
}

TEST(Autograd, GeluLinearWithAnAdapter) {
  check([](const Tensors& x) { return gelu_linear(x[0], adapted(x, 2), kOp); },
        [](const Tensors& x) { return with_adapter(at::gelu(x[0], "tanh"), x, 2); },
        leaves(kAdapterShapes));
}

// The project's own products in fp32, and bf16, whose error is a rounding of each of the three
// products and of their sum.
TEST(Autograd, AdaptersInLowerPrecision) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const double bound = type == at::kFloat ? 1e-5 : 4.0 / 256;
    Tensors inputs = leaves(kAdapterShapes, at::kFloat);
    Tensors wide;
    for (const at::Tensor& input : inputs) {
      wide.push_back(input.detach().to(at::kDouble).requires_grad_(true));
    }
    at::Tensor value, expected_value;
    const auto ours = [type](const Tensors& x) {
      return gelu_linear(x[0].to(type), adapted(x, 0.5), kOp).to(at::kFloat);
    };
    const auto reference = [](const Tensors& x) {
      return with_adapter(at::gelu(x[0], "tanh"), x, 0.5);
    };
    const Tensors found = gradients(ours, inputs, &value);
    const Tensors expected = gradients(reference, wide, &expected_value);
    EXPECT_LE(difference(value.to(at::kDouble), expected_value), bound);
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ(found[i].scalar_type(), at::kFloat);
      EXPECT_LE(difference(found[i].to(at::kDouble), expected[i]), 2 * bound) << "input " << i;
    }
  }
}

// Neither weight nor bias gets a gradient, or has one computed for it.
TEST(Autograd, AFrozenLayerPassesGradientsOn) {
  Tensors inputs = leaves(kAdapterShapes);
  const Tensors expected =
      gradients([](const Tensors& x) { return linear(x[0], adapted(x, 0.5), kOp); }, inputs);
  Tensors frozen = inputs;
  for (const int i : {1, 2}) frozen[i] = inputs[i].detach();
  const at::Tensor y = linear(frozen[0], adapted(frozen, 0.5), kOp);
  const Tensors found = torch::autograd::grad({y}, {frozen[0], frozen[3], frozen[4]},
                                              {random_tensor(y.sizes(), 600, y.scalar_type())});
  EXPECT_TRUE(found[0].equal(expected[0]));
  EXPECT_TRUE(found[1].equal(expected[3]));
  EXPECT_TRUE(found[2].equal(expected[4]));
}

TEST(Autograd, LayerNormModulate) {
  check(
      [](const Tensors& x) {
        return layer_norm_modulate(x[0], x[1], x[2], kEps, at::kDouble, kOp);
      },
      [](const Tensors& x) {
        return at::layer_norm(x[0], {9}, {}, {}, kEps) * (1 + x[2].unsqueeze(1)) +
               x[1].unsqueeze(1);
      },
      leaves({{2, 70, 9}, {2, 9}, {2, 9}}));
}

// Shift and scale are usually slices of one tensor of six.
TEST(Autograd, LayerNormModulateBySlices) {
  check(
      [](const Tensors& x) {
        return layer_norm_modulate(x[0], x[1].select(1, 4), x[1].select(1, 2), kEps, at::kDouble,
                                   kOp);
      },
      [](const Tensors& x) {
        return at::layer_norm(x[0], {9}, {}, {}, kEps) * (1 + x[1].select(1, 2).unsqueeze(1)) +
               x[1].select(1, 4).unsqueeze(1);
      },
      leaves({{2, 3, 9}, {2, 6, 9}}));
}

TEST(Autograd, LayerNormAffine) {
  check(
      [](const Tensors& x) { return layer_norm_affine(x[0], x[1], x[2], kEps, at::kDouble, kOp); },
      [](const Tensors& x) { return at::layer_norm(x[0], {9}, x[1], x[2], kEps); },
      leaves({{2, 70, 9}, {9}, {9}}));
}

at::Tensor rms_reference(const Tensors& x, int heads) {
  const at::Tensor rstd = at::rsqrt(at::mean(x[0] * x[0], {2}, true) + kEps);
  return (x[0] * rstd * x[1]).unflatten(2, {heads, -1});
}

TEST(Autograd, RmsNorm) {
  check([](const Tensors& x) { return rms_norm_heads(x[0], x[1], nullptr, 3, kEps, kOp); },
        [](const Tensors& x) { return rms_reference(x, 3); }, leaves({{2, 5, 24}, {24}}));
}

TEST(Autograd, RmsNormWithRotation) {
  parallel::TokenLayoutSpec spec;
  spec.grid = {3, 5, 2};
  const auto layout = parallel::make_token_layout(spec);
  const RopeTables rope = make_rope_tables(layout, 3, 20, 8, at::kDouble);
  check([&](const Tensors& x) { return rms_norm_heads(x[0], x[1], &rope, 3, kEps, kOp); },
        [&](const Tensors& x) {
          const at::Tensor pairs = rms_reference(x, 3).unflatten(3, {4, 2});
          const at::Tensor a = pairs.select(4, 0), b = pairs.select(4, 1);
          const at::Tensor cos = rope.cos.unsqueeze(1), sin = rope.sin.unsqueeze(1);
          return at::stack({a * cos - b * sin, a * sin + b * cos}, 4).flatten(3);
        },
        leaves({{2, 20, 24}, {24}}));
}

TEST(Autograd, GatedResidual) {
  check([](const Tensors& x) { return gated_residual(x[0], x[1], x[2], kOp); },
        [](const Tensors& x) { return x[0] + x[1] * x[2].unsqueeze(1); },
        leaves({{2, 70, 9}, {2, 70, 9}, {2, 9}}));
}

TEST(Autograd, Residual) {
  check([](const Tensors& x) { return residual(x[0], x[1], kOp); },
        [](const Tensors& x) { return x[0] + x[1]; }, leaves({{2, 5, 9}, {2, 5, 9}}));
}

TEST(Autograd, CrossAttention) {
  check([](const Tensors& x) { return cross_attention(x[0], x[1], x[2], kOp); },
        [](const Tensors& x) {
          const auto heads_first = [](const at::Tensor& t) { return t.transpose(1, 2); };
          const at::Tensor logits =
              at::matmul(heads_first(x[0]), heads_first(x[1]).transpose(-1, -2)) / std::sqrt(6.0);
          return heads_first(at::matmul(at::softmax(logits, -1), heads_first(x[2])));
        },
        leaves({{2, 130, 3, 6}, {2, 70, 3, 6}, {2, 70, 3, 6}}));
}

TEST(Autograd, NoTokensGiveZeroParameterGradients) {
  const Tensors x = leaves({{2, 0, 6}, {6, 6}, {6}, {2, 6}});
  const Function f = [](const Tensors& x) {
    const at::Tensor h = layer_norm_modulate(x[0], x[3], x[3], kEps, at::kDouble, kOp);
    const at::Tensor q = rms_norm_heads(linear(h, {x[1], x[2]}, kOp), x[2], nullptr, 1, kEps, kOp);
    const at::Tensor text = x[1].unsqueeze(0).unsqueeze(2).expand({2, 6, 1, 6});
    const at::Tensor o = cross_attention(q, text, text, kOp).view({2, 0, 6});
    return gated_residual(x[0], gelu_linear(o, {x[1], x[2]}, kOp), x[3], kOp);
  };
  for (const at::Tensor& gradient : gradients(f, x)) {
    EXPECT_EQ(gradient.abs().sum().item<double>(), 0);
  }
}

TEST(Autograd, CheckpointedFunctionAccumulatesIntoLeaves) {
  const Tensors x = leaves({{3, 4}, {4, 4}, {4}});
  const TensorFunction body = [&](const Tensors& in) {
    return gelu_linear(in[0], {x[1], x[2]}, kOp);
  };
  const auto run = [&](bool checkpointed) {
    for (const auto& leaf : x) leaf.mutable_grad() = at::Tensor();
    const at::Tensor y = checkpointed ? checkpoint(body, {x[0]}, kOp) : body({x[0]});
    (y * y).sum().backward();
    return Tensors{x[0].grad(), x[1].grad(), x[2].grad()};
  };
  const Tensors plain = run(false), again = run(true);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(plain[i].equal(again[i])) << i;
}

// fp32 and bf16 against fp64: at most twice the error of LibTorch's own operations in that type,
// and that of the chains of 256 rows in which kernels/gemm.h sums, 2^-24 sqrt(256 / 2 / 3) of the
// result.
TEST(Autograd, LowPrecisionErrsNoMoreThanLibTorch) {
  const Function reference = [](const Tensors& x) {
    const auto type = x[0].scalar_type();
    return at::linear(at::gelu(at::linear(x[0], x[1].to(type), x[2].to(type)), "tanh"),
                      x[3].to(type), x[4].to(type));
  };
  const Function ours = [](const Tensors& x) {
    return gelu_linear(linear(x[0], {x[1], x[2]}, kOp), {x[3], x[4]}, kOp);
  };
  const std::vector<std::vector<int64_t>> shapes{{1, 200, 64}, {96, 64}, {96}, {64, 96}, {64}};
  const Tensors exact = gradients(reference, leaves(shapes));
  for (auto type : {at::kFloat, at::kBFloat16}) {
    Tensors inputs = leaves(shapes, at::kFloat);
    inputs[0] = inputs[0].detach().to(type).requires_grad_(true);
    const Tensors found = gradients(ours, inputs), theirs = gradients(reference, inputs);
    for (size_t i = 0; i < exact.size(); ++i) {
      const auto error = [&](const at::Tensor& g) {
        return ((g.to(at::kDouble) - exact[i]).norm() / exact[i].norm()).item<double>();
      };
      EXPECT_LE(error(found[i]), 2 * error(theirs[i]) + 6.5 * 0x1p-24)
          << at::toString(type) << " input " << i;
    }
  }
}

TEST(Patches, RoundTripAndOrder) {
  parallel::TokenLayoutSpec spec;
  spec.grid = {3, 2, 5};
  spec.cube = {2, 2, 2};
  const auto layout = parallel::make_token_layout(spec);
  const Patch patch{2, 1, 3};
  const at::Tensor latent = random_tensor({2, 4, 6, 2, 15}, 700, at::kDouble);
  const at::Tensor conv_weight = random_tensor({5, 4, 2, 1, 3}, 701, at::kDouble);
  const at::Tensor tokens = patchify_tokens(latent, layout, patch, 0, layout.tokens());
  const at::Tensor convolved =
      at::conv3d(latent, conv_weight, {}, {2, 1, 3}).flatten(2).transpose(1, 2);
  const at::Tensor raster = at::tensor(layout.raster_index);
  EXPECT_LE(
      difference(at::linear(tokens, conv_weight.flatten(1)), convolved.index_select(1, raster)),
      1e-13);
  for (FeatureOrder order : {FeatureOrder::kChannelFirst, FeatureOrder::kChannelLast}) {
    const at::Tensor all = patchify_tokens(latent, layout, patch, 0, layout.tokens(), order);
    EXPECT_TRUE(unpatchify_tokens(all, layout, patch, order).equal(latent));
    EXPECT_TRUE(patchify_tokens(latent, layout, patch, 7, 9, order).equal(all.narrow(1, 7, 9)));
  }
}

}  // namespace
}  // namespace sprocket::models::testing

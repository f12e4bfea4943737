// The CogVideoX model against diffusers' (make_cogvideox_case.py): forward and the gradient of
// every parameter.
#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "models/cogvideox/cogvideox_weights.h"
#include "tests/models/cogvideox_case.h"
#include "tests/peer/peer_case.h"

namespace sprocket::models::testing {
namespace {

CogVideoXPositions positions_of(const std::string& name) {
  if (name == "sinusoids") return CogVideoXPositions::kSinusoids;
  if (name == "scaled_rope") return CogVideoXPositions::kScaledRope;
  SPROCKET_CHECK(name == "rope", "found {}", name);
  return CogVideoXPositions::kRope;
}

struct CogVideoXPeerCase : PeerCase {
  explicit CogVideoXPeerCase(const char* name)
      : PeerCase(std::filesystem::path(SPROCKET_PEER_CASES) / name) {
    config.dim = sizes().at("dim");
    config.heads = sizes().at("heads");
    config.layers = sizes().at("layers");
    config.ffn_dim = sizes().at("ffn_dim");
    config.latent_channels = sizes().at("latent_channels");
    config.text_dim = sizes().at("text_dim");
    config.text_tokens = sizes().at("text_tokens");
    config.time_dim = sizes().at("time_dim");
    config.positions = positions_of(sizes().at("positions"));
    const auto &patch = sizes().at("patch"), &base = sizes().at("base");
    config.patch = {patch[0], patch[1], patch[2]};
    config.base_height = base[0];
    config.base_width = base[1];
  }

  CogVideoXConfig config;
};

struct PeerResult {
  at::Tensor prediction_BCTHW;
  std::vector<at::Tensor> gradients;  // by parameter
};

PeerResult run_ours(const CogVideoXPeerCase& peer, at::ScalarType dtype, ParameterStore& store) {
  CogVideoXCase c;
  c.config = peer.config;
  c.compute.dtype = dtype;
  c.compute.threads = 2;
  const CogVideoXInputs inputs{peer.tensor("latent"), peer.tensor("timestep"), peer.tensor("text"),
                               peer.tensor("cotangent")};
  c.layout.grid = token_grid(inputs.latent_BCTHW.size(2), inputs.latent_BCTHW.size(3),
                             inputs.latent_BCTHW.size(4), c.config.patch);
  c.layout.prefix = {c.config.text_tokens};
  load_cogvideox_weights(peer.file("weights.safetensors"), store);
  const CogVideoXResult run = run_cogvideox_alone(c, inputs, store);
  PeerResult result;
  result.prediction_BCTHW =
      unpatchify_tokens(run.prediction_BLF.to(at::kDouble), parallel::make_token_layout(c.layout),
                        c.config.patch, FeatureOrder::kChannelFirst);
  for (int i = 0; i < store.size(); ++i)
    result.gradients.push_back(store.gradient(i).to(at::kDouble));
  return result;
}

PeerResult theirs(const CogVideoXPeerCase& peer, const std::string& run,
                  const ParameterStore& store) {
  PeerResult result{peer.tensor(run + ".prediction"), {}};
  for (const ParameterSpec& spec : store.specs()) {
    result.gradients.push_back(peer.tensor(run + ".grad." + spec.name));
  }
  return result;
}

// A bias of all keys adds the same to every logit of a query, which softmax does not see: without
// rotation its gradient is zero and what is found of it rounding.
bool vanishes(const CogVideoXConfig& config, const ParameterSpec& spec) {
  return !config.rotary() && spec.name.ends_with("norm_k.bias");
}

// What rounding leaves of a gradient that vanishes, relative to that of the queries' bias.
double remainder(const ParameterStore& store, const std::vector<at::Tensor>& gradients, int i) {
  std::string queries = store.spec(i).name;
  queries.replace(queries.find("norm_k"), 6, "norm_q");
  return (gradients[i].norm() / gradients[store.index_of(queries)].norm()).item<double>();
}

class CogVideoXPeer : public ::testing::TestWithParam<const char*> {};

TEST_P(CogVideoXPeer, EqualsDiffusersInDouble) {
  const CogVideoXPeerCase peer(GetParam());
  ParameterStore store(cogvideox_parameters(peer.config), at::kDouble);
  const PeerResult ours = run_ours(peer, at::kDouble, store);
  const PeerResult exact = theirs(peer, "f64", store);
  // The bound of the Wan model's test.
  EXPECT_LE(error(ours.prediction_BCTHW, exact.prediction_BCTHW), 1e-10);
  for (int i = 0; i < store.size(); ++i) {
    if (vanishes(peer.config, store.spec(i))) {
      EXPECT_LE(remainder(store, ours.gradients, i), 1e-10) << store.spec(i).name;
      continue;
    }
    EXPECT_GT(exact.gradients[i].norm().item<double>(), 0) << store.spec(i).name;
    EXPECT_LE(error(ours.gradients[i], exact.gradients[i]), 1e-10) << store.spec(i).name;
  }
}

// Against the exact result our error is at most twice that of diffusers in the same precision,
// besides that of the chain.
void compare_errors(const char* name, at::ScalarType dtype, const char* run) {
  const CogVideoXPeerCase peer(name);
  ParameterStore store(cogvideox_parameters(peer.config));
  const PeerResult ours = run_ours(peer, dtype, store);
  const PeerResult exact = theirs(peer, "f64", store), rival = theirs(peer, run, store);
  EXPECT_LE(error(ours.prediction_BCTHW, exact.prediction_BCTHW),
            2 * error(rival.prediction_BCTHW, exact.prediction_BCTHW));
  for (int i = 0; i < store.size(); ++i) {
    if (vanishes(peer.config, store.spec(i))) {
      EXPECT_LE(remainder(store, ours.gradients, i),
                2 * remainder(store, rival.gradients, i) + kChain)
          << store.spec(i).name;
      continue;
    }
    EXPECT_LE(error(ours.gradients[i], exact.gradients[i]),
              2 * error(rival.gradients[i], exact.gradients[i]) + kChain)
        << store.spec(i).name;
  }
}

TEST_P(CogVideoXPeer, ErrsNoMoreThanDiffusersInSingle) {
  compare_errors(GetParam(), at::kFloat, "f32");
}
TEST_P(CogVideoXPeer, ErrsNoMoreThanAutocastInBfloat16) {
  compare_errors(GetParam(), at::kBFloat16, "bf16");
}

INSTANTIATE_TEST_SUITE_P(Cases, CogVideoXPeer,
                         ::testing::Values("sinusoids", "scaled_rope", "rope_1_5"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace sprocket::models::testing

// The Wan model against diffusers' (make_wan_case.py): forward and the gradient of every parameter.
#include <filesystem>

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include "models/wan/wan_weights.h"
#include "tests/comm/thread_ranks.h"
#include "tests/models/wan_case.h"
#include "tests/peer/peer_case.h"

namespace sprocket::models::testing {
namespace {

struct WanPeerCase : PeerCase {
  explicit WanPeerCase(const char* name)
      : PeerCase(std::filesystem::path(SPROCKET_PEER_CASES) / name) {
    config.dim = sizes().at("dim");
    config.heads = sizes().at("heads");
    config.layers = sizes().at("layers");
    config.ffn_dim = sizes().at("ffn_dim");
    config.latent_channels = sizes().at("latent_channels");
    config.text_dim = sizes().at("text_dim");
    config.text_tokens = sizes().at("text_tokens");
    config.frequency_dim = sizes().at("frequency_dim");
    const auto& patch = sizes().at("patch");
    config.patch = {patch[0], patch[1], patch[2]};
  }

  WanConfig config;
};

struct PeerResult {
  at::Tensor velocity_BCTHW;
  std::vector<at::Tensor> gradients;  // by parameter
};

PeerResult run_ours(const WanPeerCase& peer, at::ScalarType dtype, ParameterStore& store) {
  WanCase c;
  c.config = peer.config;
  c.compute.dtype = dtype;
  c.compute.threads = 2;
  const WanInputs inputs{peer.tensor("latent"), peer.tensor("timestep"), peer.tensor("text"),
                         peer.tensor("cotangent")};
  c.layout.grid = token_grid(inputs.latent_BCTHW.size(2), inputs.latent_BCTHW.size(3),
                             inputs.latent_BCTHW.size(4), c.config.patch);
  load_wan_weights(peer.file("weights.safetensors"), store);
  PeerResult result;
  comm::testing::run_ranks(1, [&](comm::Communicator& world) {
    const WanResult run = run_wan(c, inputs, store, world);
    result.velocity_BCTHW = unpatchify_tokens(
        run.velocity_BLF.to(at::kDouble), parallel::make_token_layout(c.layout), c.config.patch);
  });
  for (int i = 0; i < store.size(); ++i)
    result.gradients.push_back(store.gradient(i).to(at::kDouble));
  return result;
}

PeerResult theirs(const WanPeerCase& peer, const std::string& run, const ParameterStore& store) {
  PeerResult result{peer.tensor(run + ".velocity"), {}};
  for (const ParameterSpec& spec : store.specs()) {
    result.gradients.push_back(peer.tensor(run + ".grad." + *to_diffusers(spec.name)));
  }
  return result;
}

class WanPeer : public ::testing::TestWithParam<const char*> {};

TEST_P(WanPeer, EqualsDiffusersInDouble) {
  const WanPeerCase peer(GetParam());
  ParameterStore store(wan_parameters(peer.config), at::kDouble);
  const PeerResult ours = run_ours(peer, at::kDouble, store);
  const PeerResult exact = theirs(peer, "f64", store);
  // The same formulas in another order of summation: a few thousand roundings of 1.1e-16 with
  // condition numbers up to 100 stay below 1e-10 with room to spare; a wrong formula does not.
  EXPECT_LE(error(ours.velocity_BCTHW, exact.velocity_BCTHW), 1e-10);
  for (int i = 0; i < store.size(); ++i) {
    EXPECT_GT(exact.gradients[i].norm().item<double>(), 0) << store.spec(i).name;
    EXPECT_LE(error(ours.gradients[i], exact.gradients[i]), 1e-10) << store.spec(i).name;
  }
}

// Against the exact result our error is at most twice that of diffusers in the same precision,
// besides that of the chain.
void compare_errors(const char* name, at::ScalarType dtype, const char* run) {
  const WanPeerCase peer(name);
  ParameterStore store(wan_parameters(peer.config));
  const PeerResult ours = run_ours(peer, dtype, store);
  const PeerResult exact = theirs(peer, "f64", store), rival = theirs(peer, run, store);
  EXPECT_LE(error(ours.velocity_BCTHW, exact.velocity_BCTHW),
            2 * error(rival.velocity_BCTHW, exact.velocity_BCTHW));
  for (int i = 0; i < store.size(); ++i) {
    EXPECT_LE(error(ours.gradients[i], exact.gradients[i]),
              2 * error(rival.gradients[i], exact.gradients[i]) + kChain)
        << store.spec(i).name;
  }
}

TEST_P(WanPeer, ErrsNoMoreThanDiffusersInSingle) { compare_errors(GetParam(), at::kFloat, "f32"); }
TEST_P(WanPeer, ErrsNoMoreThanAutocastInBfloat16) {
  compare_errors(GetParam(), at::kBFloat16, "bf16");
}

TEST_P(WanPeer, OfficialNamesLoadTheSameWeights) {
  const WanPeerCase peer(GetParam());
  ParameterStore a(wan_parameters(peer.config), at::kDouble);
  ParameterStore b(wan_parameters(peer.config), at::kDouble);
  EXPECT_EQ(load_wan_weights(peer.file("weights.safetensors"), a).scheme, NameScheme::kDiffusers);
  EXPECT_EQ(load_wan_weights(peer.file("official.safetensors"), b).scheme, NameScheme::kOfficial);
  EXPECT_TRUE(a.flat_parameters().equal(b.flat_parameters()));
}

INSTANTIATE_TEST_SUITE_P(Cases, WanPeer, ::testing::Values("default_patch", "long_patch"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace sprocket::models::testing

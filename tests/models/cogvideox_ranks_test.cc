// A small CogVideoX model on several ranks against one: forward and the gradient of every
// parameter, of which many are shared by the text's rows and the video's.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "models/token_share.h"
#include "tests/comm/thread_ranks.h"
#include "tests/models/cogvideox_case.h"
#include "tests/models/rank_comparison.h"

namespace sprocket::models::testing {
namespace {

using parallel::OuterStrategyKind;

struct Method {
  const char* name;
  parallel::AttentionSpec spec;
  int domains = 1;
};

std::vector<Method> methods() {
  parallel::AttentionSpec vsa;
  vsa.method = parallel::MethodKind::kVsa;
  vsa.vsa.sparsity = Decimal::parse("0.7");
  parallel::AttentionSpec tiles;
  tiles.method = parallel::MethodKind::kSlidingTile;
  tiles.sliding_tile.window = {1, 3, 1};
  return {{"dense", {}}, {"vsa with domains", vsa, 12}, {"sliding tile", tiles}};
}

constexpr CogVideoXPositions kPositions[] = {CogVideoXPositions::kSinusoids,
                                             CogVideoXPositions::kScaledRope};

CogVideoXCase case_of(const Method& method, CogVideoXPositions positions, at::ScalarType dtype) {
  CogVideoXCase c = small_cogvideox(positions);
  c.spec = method.spec;
  c.layout.domains = method.domains;
  c.compute.dtype = dtype;
  c.config.coarse_gate = method.spec.coarse_gated();
  return c;
}

// A bias of all keys adds the same to every logit of a query, which softmax does not see: without
// rotation its gradient is zero, and what is found of it is rounding, measured against that of the
// queries' bias.
void neglect_vanishing(const CogVideoXCase& c, const ParameterStore& store,
                       const at::Tensor& gradients, double tolerance) {
  if (c.config.rotary()) return;
  for (int layer = 0; layer < c.config.layers; ++layer) {
    const auto part = [&](const char* bias) {
      const int i = store.index_of(fmt::format("transformer_blocks.{}.attn1.{}", layer, bias));
      return gradients.narrow(0, store.offset(i), store.spec(i).elements());
    };
    const double scale = part("norm_q.bias").abs().max().item<double>();
    EXPECT_LE(part("norm_k.bias").abs().max().item<double>(), tolerance * scale) << layer;
    part("norm_k.bias").zero_();
  }
}

void compare_with_one_rank(int ranks, at::ScalarType dtype, double tolerance) {
  for (const Method& method : methods()) {
    for (const CogVideoXPositions positions : kPositions) {
      CogVideoXCase c = case_of(method, positions, dtype);
      const CogVideoXInputs inputs = small_inputs(c);
      ParameterStore alone(cogvideox_parameters(c.config), dtype);
      randomise(alone);
      const CogVideoXResult reference = run_cogvideox_alone(c, inputs, alone);
      neglect_vanishing(c, alone, reference.gradients, tolerance);

      for (const parallel::MeshShape& mesh : sequence_meshes(ranks, c.config.heads)) {
        if (method.domains % mesh.outer != 0 && method.domains > 1) continue;
        for (auto outer : {OuterStrategyKind::kAllGather, OuterStrategyKind::kRing,
                           OuterStrategyKind::kSelected}) {
          if (mesh.outer == 1 && outer != OuterStrategyKind::kSelected) continue;
          c.mesh = mesh;
          c.strategy.outer = outer;
          SCOPED_TRACE(fmt::format("{}, positions {}, outer {} ulysses {}, strategy {}",
                                   method.name, static_cast<int>(positions), mesh.outer,
                                   mesh.ulysses, static_cast<int>(outer)));
          const auto layout = parallel::make_token_layout(c.layout);
          const auto plan = make_shard_plan(layout, mesh);
          comm::testing::run_ranks(ranks, [&](comm::Communicator& world) {
            ParameterStore store(cogvideox_parameters(c.config), dtype);
            store.flat_parameters().copy_(alone.flat_parameters());
            const CogVideoXResult part = run_cogvideox(c, inputs, store, world);
            neglect_vanishing(c, store, part.gradients, tolerance);
            const TokenShare share = token_share(layout, plan, world.rank());
            const at::Tensor expected = reference.prediction_BLF.narrow(
                1, share.first_video() - layout.prefix_tokens(), share.video);
            const double scale = reference.prediction_BLF.abs().max().item<double>();
            if (share.video > 0) {
              EXPECT_LE((expected - part.prediction_BLF).abs().max().item<double>(),
                        tolerance * scale);
            }
            std::string name;
            const double worst = worst_gradient(store, reference.gradients, part.gradients, name);
            EXPECT_LE(worst, tolerance) << "gradient of " << name << " on rank " << world.rank();
          });
        }
      }
    }
  }
}

class CogVideoXRanks : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override { at::set_num_threads(1); }
};

TEST_P(CogVideoXRanks, EqualOneRankInDouble) {
  compare_with_one_rank(GetParam(), at::kDouble, 1e-10);
}
// As for the Wan model: sums over tokens are split differently on every mesh.
TEST_P(CogVideoXRanks, EqualOneRankInSingle) {
  compare_with_one_rank(GetParam(), at::kFloat, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Worlds, CogVideoXRanks, ::testing::Values(2, 3, 4));

// The text's tokens are on one rank each, and all of them somewhere.
TEST(CogVideoXShare, EveryTokenIsOnOneRank) {
  for (int domains : {1, 12}) {
    for (int text : {0, 1, 19, 400}) {
      CogVideoXCase c = small_cogvideox(CogVideoXPositions::kSinusoids);
      c.layout.domains = domains;
      c.layout.prefix = {text};
      const auto layout = parallel::make_token_layout(c.layout);
      for (const auto& mesh : {parallel::MeshShape{1, 1, 1}, parallel::MeshShape{1, 4, 1},
                               parallel::MeshShape{1, 2, 3}}) {
        const auto plan = make_shard_plan(layout, mesh);
        int64_t texts = 0, videos = 0;
        for (int rank = 0; rank < mesh.sequence(); ++rank) {
          const TokenShare share = token_share(layout, plan, rank);
          EXPECT_EQ(share.tokens(), plan.tokens_of(rank));
          if (share.text > 0) {
            EXPECT_EQ(share.first, texts);
          }
          if (share.video > 0) {
            EXPECT_EQ(share.first_video(), text + videos);
          }
          texts += share.text;
          videos += share.video;
        }
        EXPECT_EQ(texts, text);
        EXPECT_EQ(videos, c.layout.grid.tokens());
      }
    }
  }
}

TEST(CogVideoXCheckpointing, IsBitwiseInvisibleOnEveryMesh) {
  at::set_num_threads(1);
  for (auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (const Method& method : methods()) {
      CogVideoXCase c = case_of(method, CogVideoXPositions::kScaledRope, dtype);
      c.mesh = {1, 2, 2};
      const CogVideoXInputs inputs = small_inputs(c);
      comm::testing::run_ranks(4, [&](comm::Communicator& world) {
        at::Tensor gradients[2], predictions[2];
        for (bool checkpoint : {false, true}) {
          CogVideoXCase variant = c;
          variant.compute.checkpoint_blocks = checkpoint;
          ParameterStore store(cogvideox_parameters(c.config),
                               dtype == at::kDouble ? at::kDouble : at::kFloat);
          randomise(store);
          const CogVideoXResult result = run_cogvideox(variant, inputs, store, world);
          gradients[checkpoint] = result.gradients;
          predictions[checkpoint] = result.prediction_BLF;
        }
        EXPECT_TRUE(predictions[0].equal(predictions[1])) << method.name;
        EXPECT_TRUE(gradients[0].equal(gradients[1])) << method.name;
        EXPECT_GT(gradients[0].abs().max().item<double>(), 0);
      });
    }
  }
}

// More ranks than blocks: some hold the text alone, or nothing at all.
TEST(CogVideoXRanksEmpty, RanksWithoutTokensTakePart) {
  at::set_num_threads(1);
  for (const int text : {1, 19}) {
    CogVideoXCase c = case_of(methods()[1], CogVideoXPositions::kScaledRope, at::kDouble);
    c.layout.domains = 1;
    c.layout.grid = {1, 2, 3};
    c.config.text_tokens = text;
    c.layout.prefix = {text};
    const CogVideoXInputs inputs = small_inputs(c);
    ParameterStore alone(cogvideox_parameters(c.config), at::kDouble);
    randomise(alone);
    const CogVideoXResult reference = run_cogvideox_alone(c, inputs, alone);
    c.mesh = {1, 4, 1};
    comm::testing::run_ranks(4, [&](comm::Communicator& world) {
      for (bool checkpoint : {false, true}) {
        CogVideoXCase variant = c;
        variant.compute.checkpoint_blocks = checkpoint;
        ParameterStore store(cogvideox_parameters(c.config), at::kDouble);
        randomise(store);
        const CogVideoXResult part = run_cogvideox(variant, inputs, store, world);
        std::string name;
        EXPECT_LE(worst_gradient(store, reference.gradients, part.gradients, name), 1e-10) << name;
      }
    });
  }
}

}  // namespace
}  // namespace sprocket::models::testing

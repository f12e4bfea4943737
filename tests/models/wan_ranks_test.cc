// A small DiT on several ranks against one: forward and the gradient of every parameter.
#include <gtest/gtest.h>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include "models/lora.h"
#include "tests/comm/thread_ranks.h"
#include "tests/models/rank_comparison.h"
#include "tests/models/wan_case.h"

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
  parallel::AttentionSpec budget = vsa;  // with as many domains as cubes, for every outer degree
  budget.budget.max_coverage = {Decimal::parse("0.25")};
  budget.budget.head_group = 1;
  return {{"dense", {}}, {"vsa", vsa}, {"vsa with a budget", budget, 12}};
}

WanResult run_on_one_rank(const WanCase& whole, const WanInputs& inputs, ParameterStore& store) {
  WanCase c = whole;
  c.mesh = {};
  WanResult result;
  comm::testing::run_ranks(
      1, [&](comm::Communicator& world) { result = run_wan(c, inputs, store, world); });
  return result;
}

void compare_with_one_rank(int ranks, at::ScalarType dtype, double tolerance) {
  for (const Method& method : methods()) {
    WanCase c = small_case();
    c.spec = method.spec;
    c.layout.domains = method.domains;
    c.compute.dtype = dtype;
    c.config.coarse_gate = method.spec.method == parallel::MethodKind::kVsa;
    const WanInputs inputs = small_inputs(c);
    ParameterStore reference_store(wan_parameters(c.config), dtype);
    randomise(reference_store);
    const WanResult reference = run_on_one_rank(c, inputs, reference_store);

    for (const parallel::MeshShape& mesh : sequence_meshes(ranks, c.config.heads)) {
      if (method.domains % mesh.outer != 0 && method.domains > 1) continue;
      for (auto outer : {OuterStrategyKind::kAllGather, OuterStrategyKind::kRing,
                         OuterStrategyKind::kSelected}) {
        if (mesh.outer == 1 && outer != OuterStrategyKind::kSelected) continue;
        c.mesh = mesh;
        c.strategy.outer = outer;
        SCOPED_TRACE(fmt::format("{}, outer {} ulysses {}, strategy {}", method.name, mesh.outer,
                                 mesh.ulysses, static_cast<int>(outer)));
        const auto plan = make_shard_plan(parallel::make_token_layout(c.layout), mesh);
        comm::testing::run_ranks(ranks, [&](comm::Communicator& world) {
          ParameterStore store(wan_parameters(c.config), dtype);
          store.flat_parameters().copy_(reference_store.flat_parameters());
          const WanResult part = run_wan(c, inputs, store, world);
          const int64_t first = plan.rank_tokens[world.rank()],
                        count = plan.tokens_of(world.rank());
          const at::Tensor expected = reference.velocity_BLF.narrow(1, first, count);
          const double scale = reference.velocity_BLF.abs().max().item<double>();
          if (count > 0) {
            EXPECT_LE((expected - part.velocity_BLF).abs().max().item<double>(), tolerance * scale);
          }
          std::string name;
          const double worst = worst_gradient(store, reference.gradients, part.gradients, name);
          EXPECT_LE(worst, tolerance) << "gradient of " << name << " on rank " << world.rank();
        });
      }
    }
  }
}

class WanRanks : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override { at::set_num_threads(1); }
};

TEST_P(WanRanks, EqualOneRankInDouble) { compare_with_one_rank(GetParam(), at::kDouble, 1e-10); }
// The bound of the acceptance list; sums over tokens are split differently on every mesh.
TEST_P(WanRanks, EqualOneRankInSingle) { compare_with_one_rank(GetParam(), at::kFloat, 1e-4); }

INSTANTIATE_TEST_SUITE_P(Worlds, WanRanks, ::testing::Values(2, 3, 4));

// Adapters and gates beside frozen weights, which all ranks share.
TEST_P(WanRanks, AdaptersEqualOneRank) {
  WanCase c = small_case();
  c.spec = methods()[1].spec;
  const WanInputs inputs = small_inputs(c);
  const auto specs = wan_parameters(c.config);
  const LoraSpec lora{3, 6, {"blocks.*.*_attn.*", "blocks.*.ffn.*", "text_embedding.0"}};
  ParameterStore base(specs, at::kDouble, at::kCPU, ParameterStore::Copies::kNone,
                      ParameterStore::Use::kFrozen);
  randomise(base);
  const auto run = [&](const WanCase& on, comm::Communicator& world, ParameterStore& trained) {
    randomise(trained);
    return run_wan(on, inputs, {base, &trained, lora.factor()}, trained, world).gradients;
  };
  ParameterStore alone(lora_parameters(specs, lora), at::kDouble);
  at::Tensor expected;
  comm::testing::run_ranks(1, [&](comm::Communicator& world) { expected = run(c, world, alone); });
  for (const parallel::MeshShape& mesh : sequence_meshes(GetParam(), c.config.heads)) {
    for (const bool checkpoint : {false, true}) {
      WanCase on = c;
      on.mesh = mesh;
      on.compute.checkpoint_blocks = checkpoint;
      comm::testing::run_ranks(GetParam(), [&](comm::Communicator& world) {
        ParameterStore trained(lora_parameters(specs, lora), at::kDouble);
        const at::Tensor found = run(on, world, trained);
        std::string name;
        EXPECT_LE(worst_gradient(trained, expected, found, name), 1e-10) << name;
      });
    }
  }
}

TEST(WanCheckpointing, IsBitwiseInvisibleOnEveryMesh) {
  at::set_num_threads(1);
  for (auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (const Method& method : methods()) {
      WanCase c = small_case();
      c.spec = method.spec;
      c.layout.domains = method.domains;
      c.compute.dtype = dtype;
      c.config.coarse_gate = method.spec.method == parallel::MethodKind::kVsa;
      c.mesh = {1, 2, 2};
      const WanInputs inputs = small_inputs(c);
      comm::testing::run_ranks(4, [&](comm::Communicator& world) {
        at::Tensor gradients[2], velocities[2];
        for (bool checkpoint : {false, true}) {
          WanCase variant = c;
          variant.compute.checkpoint_blocks = checkpoint;
          ParameterStore store(wan_parameters(c.config),
                               dtype == at::kDouble ? at::kDouble : at::kFloat);
          randomise(store);
          const WanResult result = run_wan(variant, inputs, store, world);
          gradients[checkpoint] = result.gradients;
          velocities[checkpoint] = result.velocity_BLF;
        }
        EXPECT_TRUE(velocities[0].equal(velocities[1])) << method.name;
        EXPECT_TRUE(gradients[0].equal(gradients[1])) << method.name;
        EXPECT_GT(gradients[0].abs().max().item<double>(), 0);
      });
    }
  }
}

// More ranks than cubes: some hold no tokens at all.
TEST(WanRanksEmpty, RanksWithoutTokensTakePart) {
  at::set_num_threads(1);
  WanCase c = small_case();
  c.spec = methods()[1].spec;
  c.layout.grid = {1, 2, 3};
  const WanInputs inputs = small_inputs(c);
  ParameterStore reference_store(wan_parameters(c.config), at::kDouble);
  randomise(reference_store);
  const WanResult reference = run_on_one_rank(c, inputs, reference_store);
  c.mesh = {1, 3, 1};
  comm::testing::run_ranks(3, [&](comm::Communicator& world) {
    for (bool checkpoint : {false, true}) {
      WanCase variant = c;
      variant.compute.checkpoint_blocks = checkpoint;
      ParameterStore store(wan_parameters(c.config), at::kDouble);
      randomise(store);
      const WanResult part = run_wan(variant, inputs, store, world);
      std::string name;
      EXPECT_LE(worst_gradient(store, reference.gradients, part.gradients, name), 1e-10) << name;
    }
  });
}

// Intervals know their layer and phase, in the recomputation too.
TEST(WanTimeline, NamesLayersAndPhases) {
  at::set_num_threads(1);
  WanCase c = small_case();
  c.compute.checkpoint_blocks = true;
  c.config.coarse_gate = false;
  const WanInputs inputs = small_inputs(c);
  Timeline timeline;
  timeline.set_recording(true);
  comm::CommunicatorOptions options;
  options.timeline = &timeline;
  comm::testing::run_ranks({options}, [&](comm::Communicator& world) {
    ParameterStore store(wan_parameters(c.config), at::kDouble);
    randomise(store);
    run_wan(c, inputs, store, world);
  });
  int seen[3][2] = {};
  for (const Interval& interval : timeline.take()) {
    if (interval.position.layer < 0 || std::string_view(interval.name) != "linear") continue;
    ASSERT_LT(interval.position.layer, 2);
    switch (interval.position.phase) {
      case Phase::kForward:
        ++seen[0][interval.position.layer];
        break;
      case Phase::kRecompute:
        ++seen[1][interval.position.layer];
        break;
      case Phase::kBackward:
        ++seen[2][interval.position.layer];
        break;
      case Phase::kOther:
      case Phase::kOptimizer:
      case Phase::kSample:
      case Phase::kStudent:
      case Phase::kTeacher:
      case Phase::kFakeScore:
      case Phase::kFakeScoreForward:
      case Phase::kFakeScoreBackward:
      case Phase::kFakeScoreRecompute:
      case Phase::kFakeScoreOptimizer:
        FAIL() << name_of(interval.position.phase);
    }
  }
  // Linear layers of a block besides the one behind GELU: q, k, v, o twice and the FFN's first.
  for (const auto& phase : seen) {
    EXPECT_EQ(phase[0], 9);
    EXPECT_EQ(phase[1], 9);
  }
}

}  // namespace
}  // namespace sprocket::models::testing

// The work that scopes count over a training step is what the planner's formulas say.
#include <gtest/gtest.h>

#include <map>

#include "configs/load.h"
#include "runtime/parity/parity_samples.h"
#include "runtime/plan/flops.h"
#include "runtime/plan/job_specs.h"
#include "runtime/train/network.h"
#include "tests/runtime/thread_ranks.h"

namespace sprocket::runtime {
namespace {

// 3 x 6 x 8 tokens, so that cubes at the borders are partial.
config::Job job(const std::string& attention, const std::string& training,
                const std::string& parallel = "", int world = 1, const std::string& family = "") {
  return config::parse_job(
             "model { dim: 64 heads: 2 layers: 2 ffn_dim: 96 latent_channels: 4 text_dim: 8 "
             "text_tokens: 6 frequency_dim: 16 " +
                 family +
                 " } data { latent { t: 3 h: 12 w: 16 } } "
                 "training { steps: 20 global_batch: 1 micro_batch: 1 seed: 3 " +
                 training + " } attention { cube { t: 4 h: 4 w: 4 } " + attention +
                 " } parallel { " + parallel + " } compute { threads: 1 }",
             "work", {}, {.world = world})
      .job;
}

struct Counted {
  std::map<std::string, Work> work;  // by scope
  double pairs = 0;                  // of a mean layer

  double flops(const std::string& name) const {
    const auto found = work.find(name);
    return found == work.end() ? 0 : found->second.flops;
  }
  // Of the passes of self-attention: their names depend on the strategy.
  double attention() const {
    double sum = 0;
    for (const auto& [name, counted] : work) sum += name.starts_with("attention.") * counted.flops;
    return sum;
  }
};

// Forward and backward; sums over the ranks.
Counted count(const config::Job& job, int ranks) {
  std::vector<Counted> each(ranks);
  testing::run_ranks(ranks, [&](std::unique_ptr<comm::Communicator> world) {
    Counted& counted = each[world->rank()];
    const parallel::Mesh mesh(std::move(world), mesh_shape(job));
    Network network(job, mesh, 1, Network::Start::kFresh);
    const ParitySamples samples = load_parity_samples(job);
    mesh.timeline()->set_recording(true);
    forward_backward(network, samples.replicas.front(), 0, samples.samples());
    for (const Interval& interval : mesh.timeline()->take()) {
      Work& sum = counted.work[interval.name];
      sum.flops += interval.work.flops;
      sum.bytes += interval.work.bytes;
    }
    for (const parallel::AttentionSlot& slot : network.slots()) {
      for (const int64_t pairs : slot.statistics.pairs) {
        counted.pairs += static_cast<double>(pairs) / static_cast<double>(network.layers());
      }
    }
  });
  Counted all;
  for (const Counted& counted : each) {
    all.pairs += counted.pairs;
    for (const auto& [name, work] : counted.work) {
      all.work[name].flops += work.flops;
      all.work[name].bytes += work.bytes;
    }
  }
  return all;
}

const char* const kDense = "method: DENSE";
const char* const kVsa = "method: VSA vsa { sparsity { start: 0.5 } }";
constexpr double kTokens = 3 * 6 * 8, kDim = 64, kHeads = 2;

class StepWork : public ::testing::TestWithParam<std::tuple<const char*, bool>> {};

TEST_P(StepWork, IsWhatThePlannerCounts) {
  const auto& [attention, again] = GetParam();
  const config::Job step =
      job(attention, again ? "activation_checkpointing: BLOCK" : "activation_checkpointing: KEEP");
  const Counted counted = count(step, 1);
  const double density = counted.pairs / (kHeads * kTokens * kTokens);
  double expected = step_flops(step, 1, static_cast<int64_t>(kTokens), density).executed;
  // Nobody needs the gradients of patches and texts, and what is outside of the blocks is not
  // computed again.
  const config::Model& m = step.model();
  expected -= 2 * kTokens * (4 * 1 * 2 * 2) * kDim + 2.0 * m.text_tokens() * m.text_dim() * kDim;
  if (again) expected -= forward_flops(step, kTokens).edges;
  // The time embedding, which is too little for the planner; sinusoids need no gradient either.
  const double sinusoids = 2.0 * m.frequency_dim() * kDim;
  expected += 3 * (sinusoids + 2 * 7 * kDim * kDim) - sinusoids;
  const double found = counted.flops("linear") + counted.flops("gelu_linear") +
                       counted.flops("cross_attention") + counted.attention();
  EXPECT_NEAR(found, expected, 1e-12 * expected);
  for (const char* name : {"linear", "gelu_linear", "cross_attention", "attention.local", "norm",
                           "qk_norm", "residual", "attention.delta", "patchify"}) {
    EXPECT_GT(counted.work.at(name).bytes, 0) << name;
  }
}

// The same with the text in the sequence.
TEST_P(StepWork, IsWhatThePlannerCountsOfCogVideoX) {
  const auto& [attention, again] = GetParam();
  const config::Job step =
      job(attention, again ? "activation_checkpointing: BLOCK" : "activation_checkpointing: KEEP",
          "", 1, "family: COGVIDEOX cogvideox { time_dim: 24 positions: SCALED_ROPE }");
  const Counted counted = count(step, 1);
  const config::Model& m = step.model();
  const double tokens = kTokens + m.text_tokens(), time = m.cogvideox().time_dim();
  const double density = counted.pairs / (kHeads * tokens * tokens);
  double expected = step_flops(step, 1, static_cast<int64_t>(tokens), density).executed;
  expected -= 2 * kTokens * (4 * 1 * 2 * 2) * kDim + 2.0 * m.text_tokens() * m.text_dim() * kDim;
  if (again) expected -= forward_flops(step, tokens).edges;
  // The time embedding and the output's modulation.
  expected += 3 * 2 * (kDim * time + time * time + time * 2 * kDim) - 2 * kDim * time;
  const double found = counted.flops("linear") + counted.flops("gelu_linear") + counted.attention();
  EXPECT_NEAR(found, expected, 1e-12 * expected);
}

INSTANTIATE_TEST_SUITE_P(Methods, StepWork,
                         ::testing::Combine(::testing::Values(kDense, kVsa), ::testing::Bool()));

// However the keys travel, the passes of all ranks together compute the pairs that one rank does.
TEST(AttentionWork, IsTheSameOnAllMeshes) {
  for (const std::string attention : {kDense, kVsa}) {
    const std::string domains = " domains: 2";
    const double expected = count(job(attention + domains, ""), 1).attention();
    EXPECT_GT(expected, 0);
    for (const char* parallel :
         {"strategy: RING", "strategy: ALL_GATHER", "strategy: SELECTED", "ulysses: 2"}) {
      EXPECT_EQ(count(job(attention + domains, "", parallel, 2), 2).attention(), expected)
          << attention << " " << parallel;
    }
  }
}

}  // namespace
}  // namespace sprocket::runtime

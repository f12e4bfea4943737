#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "runtime/plan/dry_run.h"
#include "runtime/plan/job_specs.h"
#include "runtime/plan/memory_estimate.h"

namespace sprocket::runtime {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

config::LoadedJob load(const std::string& text, int world) {
  return config::parse_job(text, "job.txtpb", {}, {.world = world});
}

TEST(MemoryEstimate, CountsTheParametersOfWan) {
  EXPECT_EQ(parameter_count(load("", 1).job), 1'418'996'800);
  EXPECT_EQ(parameter_count(load("model { dim: 5120 ffn_dim: 13824 heads: 40 layers: 40 }", 1).job),
            14'288'491'584);
  // VSA's gate adds a linear layer to every block; ADD has none.
  EXPECT_EQ(parameter_count(load("attention { method: VSA }", 1).job),
            1'418'996'800 + 30 * (int64_t{1536} * 1536 + 1536));
  EXPECT_EQ(parameter_count(load("attention { method: VSA vsa { coarse: ADD } }", 1).job),
            1'418'996'800);
}

TEST(MemoryEstimate, StateIsSixteenBytesAParameter) {
  const config::Job job = load("", 1).job;
  const MemoryEstimate estimate = estimate_training_memory(job, {});
  int64_t state = 0;
  for (int i = 0; i < 3; ++i) state += estimate.rows[i].bytes;
  EXPECT_EQ(state, 16 * parameter_count(job));
}

TEST(MemoryEstimate, CheckpointingAndShardsShrinkActivations) {
  const auto total = [](const std::string& text, RankShare share) {
    return estimate_training_memory(load(text, 1).job, share).total();
  };
  const std::string checkpointed = "training { activation_checkpointing: BLOCK }";
  EXPECT_LT(total(checkpointed, {32760, 0}), total("", {32760, 0}) / 3);
  EXPECT_LT(total("", {16380, 0}), total("", {32760, 0}));
  EXPECT_LT(total("", {16380, 0}), total("", {16380, 16380}));
  EXPECT_LT(total("parallel { remote_kv: FETCH_AGAIN }", {16380, 16380}),
            total("", {16380, 16380}));
  // A ring passes them on and keeps nothing.
  EXPECT_EQ(total("parallel { strategy: RING }", {16380, 16380}),
            total("parallel { remote_kv: FETCH_AGAIN }", {16380, 16380}));
  EXPECT_LT(total("compute { precision: BF16 }", {32760, 0}), total("", {32760, 0}));
}

// Bytes of weights, gradients and moments: the first rows.
int64_t state_of(const MemoryEstimate& estimate, int rows) {
  int64_t state = 0;
  for (int i = 0; i < rows; ++i) state += estimate.rows[i].bytes;
  return state;
}

TEST(MemoryEstimate, NetworksOfADistillationShareWhatIsFrozen) {
  const config::LatentShape shape{16, 4, 16, 16};
  const auto state = [&](const std::string& training, const std::string& fake_score) {
    const config::Job job =
        load("model { dim: 256 heads: 4 layers: 2 } training { " + training +
                 " } distillation { teacher { weights: 'w' } fake_score { " + fake_score + " } }",
             1)
            .job;
    return std::pair(state_of(estimate_distillation_memory(job, shape, 0), 4), job);
  };
  // A teacher of 4 bytes, two trained networks of 16.
  const auto [whole, job] = state("", "");
  EXPECT_EQ(whole, (4 + 2 * 16) * parameter_count(job));
  const auto [adapters, with_adapters] = state("lora { rank: 4 }", "");
  EXPECT_EQ(adapters, 4 * parameter_count(job) + 2 * 16 * trained_count(with_adapters));
  EXPECT_LT(trained_count(with_adapters), parameter_count(job) / 10);
  // The fake score on weights of its own.
  EXPECT_EQ(state("lora { rank: 4 }", "weights: 'f'").first, adapters + 4 * parameter_count(job));
}

// Even shards: the formulas of docs/sequence_parallel.md, with u the bytes of a rank's share of Q.
TEST(DryRun, BytesAreTheClosedForms) {
  const config::LatentShape shape{16, 8, 32, 32};  // 8 x 16 x 16 tokens
  const std::string model = "model { dim: 256 heads: 4 } ";
  const auto sent = [&](const std::string& parallel, int world) {
    return layer_traffic(load(model + parallel, world).job, shape, 0);
  };
  const int64_t tokens = 8 * 16 * 16, dim = 256;
  for (const RankTraffic& rank : sent("parallel { ulysses: 4 }", 4)) {
    const int64_t u = tokens / 4 * dim * 4;
    EXPECT_EQ(rank.bytes(Phase::kForward), 4 * u * 3 / 4);
    EXPECT_EQ(rank.bytes(Phase::kBackward), 4 * u * 3 / 4);
    EXPECT_EQ(rank.messages(Phase::kForward), 2 * 3);
  }
  for (const RankTraffic& rank : sent("parallel { strategy: RING }", 4)) {
    const int64_t u = tokens / 4 * dim * 4;
    EXPECT_EQ(rank.bytes(Phase::kForward), 2 * 3 * u);
    EXPECT_EQ(rank.bytes(Phase::kBackward), 2 * 3 * u + 2 * 4 * u);
  }
  for (const RankTraffic& rank :
       sent("parallel { strategy: ALL_GATHER remote_kv: FETCH_AGAIN }", 2)) {
    const int64_t u = tokens / 2 * dim * 4;
    EXPECT_EQ(rank.bytes(Phase::kForward), 2 * u);
    EXPECT_EQ(rank.bytes(Phase::kBackward), 4 * u);
  }
  for (const RankTraffic& rank : sent("", 1)) EXPECT_TRUE(rank.rows.empty());
}

TEST(DryRun, SaysWhatARankNeedsEitherWay) {
  const config::LatentShape shape{16, 8, 32, 32};
  const auto report = [&](const std::string& parallel) {
    return dry_run_report(load("model { dim: 256 heads: 4 layers: 2 } " + parallel, 2), shape,
                          "data.latent");
  };
  EXPECT_THAT(report(""), HasSubstr("where a rank has less (remote_kv: AUTO)"));
  for (const char* decided :
       {"parallel { remote_kv: KEEP }", "parallel { strategy: RING }", "parallel { ulysses: 2 }",
        "training { activation_checkpointing: BLOCK }"}) {
    EXPECT_THAT(report(decided), Not(HasSubstr("where a rank has less"))) << decided;
  }
}

TEST(SamplingAttention, PsaStartsDense) {
  const auto dense_until = [](const std::string& attention, int count) {
    const config::Attention options = load("attention { " + attention + " }", 1).job.attention();
    int index = 0;
    while (index < count && sampling_attention_spec(options, 0, index, count).method ==
                                parallel::MethodKind::kDense) {
      ++index;
    }
    return index;
  };
  EXPECT_EQ(dense_until("method: PSA", 50), 12);
  EXPECT_EQ(dense_until("method: PSA psa { dense_sampling: 0 }", 50), 0);
  EXPECT_EQ(dense_until("method: PSA psa { dense_sampling: 1 }", 50), 50);
  EXPECT_EQ(dense_until("method: VSA", 50), 0);
}

TEST(DryRun, ReportsJobMeshTrafficAndMemory) {
  const config::LoadedJob loaded = load(
      "model { dim: 256 heads: 4 layers: 2 }\n"
      "attention { method: VSA domains: 4 max_coverage { start: 1 end: 0.25 increment: -0.25 } "
      "budget_head_group: 2 }\n"
      "parallel { ulysses: 2 data: 2 }\n"
      "training { global_batch: 2 }",
      8);
  const std::string report = dry_run_report(loaded, {16, 8, 32, 30}, "data.latent");
  EXPECT_THAT(report,
              HasSubstr("# job.txtpb, with every default written out\nmodel {\n  dim: 256\n"));
  EXPECT_THAT(report,
              HasSubstr("latent 16 x 8 x 32 x 30 (data.latent)\n  tokens 8 x 16 x 15 = 1,920 in "
                        "32 blocks of 4 x 4 x 4, 4 domains"));
  EXPECT_THAT(report, HasSubstr("8 ranks = data 2 x outer 2 x ulysses 2, strategy SELECTED"));
  EXPECT_THAT(report, HasSubstr("      7     1      1        1        480      16-31      2-3"));
  EXPECT_THAT(report, HasSubstr("at step 0 (selected k, v: an upper bound)"));
  EXPECT_THAT(report, HasSubstr("at step 999 "));
  EXPECT_THAT(report, HasSubstr("gradients of selected k, v"));
  EXPECT_THAT(report, HasSubstr("parameters (fp32)"));
  EXPECT_THAT(report, HasSubstr("total"));
  EXPECT_THAT(report, HasSubstr("nothing was run"));
}

TEST(DryRun, RefusesMoreRanksThanWork) {
  const config::LoadedJob loaded = load("parallel { outer: 3 }", 3);
  try {
    dry_run_report(loaded, {16, 4, 8, 16}, "clip/index.json");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(
        error.what(),
        "job.txtpb:1:12: parallel.outer: 3, found a video of 2 blocks: some ranks would have "
        "no work; legal: 1 to 2 (clip/index.json)");
  }
}

}  // namespace
}  // namespace sprocket::runtime

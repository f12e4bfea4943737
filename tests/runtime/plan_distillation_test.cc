// `sprocket plan` of a distillation: what its networks do in a step, and how they are combined.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "runtime/plan/distillation_passes.h"
#include "runtime/plan/distillation_plan.h"
#include "runtime/planner/plan_job.h"

namespace sprocket::runtime {
namespace {

using config::NetworkRole;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kCluster[] =
    "name: 'two small nodes' nodes: 2 devices: 2 memory_gib: 1 copy_gb_s: 8 call_us: 5\n"
    "link { class: INSIDE_NODE bandwidth_gb_s: 6 latency_us: 4 message_us: 1 duplex: FULL\n"
    "  adapter: PER_DEVICE overlap: 0 }\n"
    "link { class: BETWEEN_NODES bandwidth_gb_s: 0.1 latency_us: 100 message_us: 10 duplex: FULL\n"
    "  adapter: SHARED overlap: 0.5 }\n"
    "rates { precision: FP32 attention_forward_tflops: 0.2 attention_backward_tflops: 0.2 "
    "attention_forward_row_ns: 100 attention_backward_row_ns: 100\n"
    "  linear_tflops: 0.2 selection_tflops: 0.05 }\n";
const config::LatentShape kShape{16, 8, 32, 48};

config::LoadedJob distill_job(const std::string& distillation, const std::string& training = "") {
  return config::parse_job(
      "model { dim: 256 heads: 4 layers: 4 ffn_dim: 1024 }\n"
      "attention { method: VSA domains: 4 vsa { sparsity { start: 0.75 } } }\n"
      "training { global_batch: 4 " +
          training +
          " }\n"
          "parallel { ulysses: 2 strategy: RING }\n"
          "distillation { teacher { weights: 'T' } " +
          distillation + " }\n",
      "job.txtpb", {}, {});
}

config::Cluster cluster() { return config::parse_cluster(kCluster, "c.txtpb"); }

DistillationPlan plan_of(const config::LoadedJob& loaded) {
  const ClusterModel model = cluster_model(cluster(), loaded.job.compute().precision());
  return plan_distillation(loaded, kShape, model, [&](NetworkRole, const config::Job& network) {
    return LayerPlanner(network, kShape, 0, SelectionSource{}, model);
  });
}

void expect_passes(const config::LoadedJob& loaded, NetworkRole role, NetworkPasses expected) {
  const NetworkPasses found = distillation_passes(loaded.job, role);
  EXPECT_DOUBLE_EQ(found.plain, expected.plain) << config::name_of(role);
  EXPECT_DOUBLE_EQ(found.with_graph, expected.with_graph) << config::name_of(role);
  EXPECT_DOUBLE_EQ(found.updates, expected.updates) << config::name_of(role);
}

TEST(DistillationPasses, OfTdm) {
  // The two losses draw a segment each; the larger of two even draws from 0 .. 3 is 34 / 16.
  const config::LoadedJob loaded = distill_job("recipe: TDM tdm { segments: 4 }");
  expect_passes(loaded, NetworkRole::kStudent, {34.0 / 16 + 1, 1, 1});
  expect_passes(loaded, NetworkRole::kTeacher, {2, 0, 0});
  expect_passes(loaded, NetworkRole::kFakeScore, {1, 1, 1});
  const config::LoadedJob one =
      distill_job("recipe: TDM guidance: 1 tdm { segments: 1 teacher_weight: 0.5 }");
  expect_passes(one, NetworkRole::kStudent, {1, 1, 1});
  expect_passes(one, NetworkRole::kTeacher, {2, 0, 0});
}

TEST(DistillationPasses, OfDmd2) {
  // Of every third step the student has a phase: the larger of two even draws from 0 .. 1 is 3 / 4,
  // a single one 1 / 2.
  const config::LoadedJob loaded =
      distill_job("recipe: DMD2 dmd2 { timestep: [1000, 500] student_interval: 3 }");
  expect_passes(loaded, NetworkRole::kStudent, {2.0 / 3 / 2 + 1.0 / 4 + 1, 1.0 / 3, 1.0 / 3});
  expect_passes(loaded, NetworkRole::kTeacher, {2.0 / 3, 0, 0});
  expect_passes(loaded, NetworkRole::kFakeScore, {1.0 / 3, 1, 1});
}

TEST(DistillationPlan, ANetworksPartIsItsEvaluations) {
  const config::LoadedJob loaded = distill_job("recipe: TDM");
  const DistillationPlan plan = plan_of(loaded);
  ASSERT_EQ(plan.networks.size(), 3u);
  const NetworkPlan& teacher = plan.networks[1];
  EXPECT_EQ(teacher.loaded.job.attention().method(), config::Attention::DENSE);
  const Candidate& candidate = *teacher.best(2);
  const BlockRuns runs = block_runs(
      [&] {
        config::Job job = teacher.loaded.job;
        *job.mutable_parallel() = candidate.parallel;
        return job;
      }(),
      teacher.passes);
  EXPECT_EQ(runs.forwards, 2 * 4 * 2);  // micro-batches, layers, with and without text
  EXPECT_EQ(runs.backwards, 0);
  EXPECT_EQ(candidate.step.gradient_sum, 0);
  EXPECT_EQ(candidate.step.optimizer, 0);
  EXPECT_GT(candidate.step.seconds, runs.forwards * candidate.step.layer_forward);
  EXPECT_LT(candidate.step.seconds, 1.2 * runs.forwards * candidate.step.layer_forward);
  EXPECT_EQ(candidate.step_bytes, runs.forwards * candidate.forward_bytes);
}

TEST(DistillationPlan, ChoicesHaveOneDataDegreeAndAreSorted) {
  const config::LoadedJob loaded = distill_job("recipe: TDM");
  const DistillationPlan plan = plan_of(loaded);
  ASSERT_EQ(plan.choices.size(), 3u);  // data 1, 2, 4
  double before = 0;
  for (const NetworkChoice& choice : plan.choices) {
    double sum = 0;
    for (size_t i = 0; i < 3; ++i) {
      const Candidate& candidate = *choice.candidates[i];
      EXPECT_EQ(candidate.parallel.data(), choice.candidates[0]->parallel.data());
      for (const Candidate& other : plan.networks[i].candidates) {
        if (!other.legal() || other.parallel.data() != candidate.parallel.data()) continue;
        EXPECT_LE(candidate.step.seconds, other.step.seconds);
      }
      sum += candidate.step.seconds;
    }
    EXPECT_DOUBLE_EQ(choice.seconds, sum);
    EXPECT_GE(choice.seconds, before);
    before = choice.seconds;
  }
}

TEST(DistillationPlan, MemoryIsOfTheThreeTogether) {
  const config::LoadedJob whole = distill_job("recipe: TDM");
  const config::LoadedJob adapters = distill_job("recipe: TDM", "lora { rank: 4 }");
  const int64_t bytes = plan_of(whole).choices[0].memory.total();
  const int64_t with_adapters = plan_of(adapters).choices[0].memory.total();
  EXPECT_GT(bytes, plan_of(whole).choices[0].candidates[0]->memory.total());
  EXPECT_LT(with_adapters, bytes);
}

TEST(DistillationPlan, ReportNamesAllThreeAndTheJobsOwnMeshes) {
  PlanOptions options;
  const std::string text =
      run_plan(distill_job("recipe: TDM"), kShape, "data.latent", cluster(), options);
  EXPECT_THAT(text, AllOf(HasSubstr("student     VSA"), HasSubstr("teacher     DENSE"),
                          HasSubstr("fake_score  VSA"), HasSubstr("* as the job is written"),
                          HasSubstr("Recommended: student: data "), Not(HasSubstr("by itself"))));
  options.all = true;
  EXPECT_THAT(run_plan(distill_job("recipe: TDM"), kShape, "data.latent", cluster(), options),
              HasSubstr("teacher by itself"));
}

}  // namespace
}  // namespace sprocket::runtime

// What `sprocket profile` reports of real jobs on thread ranks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "configs/cluster.h"
#include "runtime/jobs/sample_job.h"
#include "runtime/plan/layer_planner.h"
#include "runtime/profile/report.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/thread_ranks.h"
#include "tests/runtime/tiny_job.h"

namespace sprocket::runtime {
namespace {

using ::testing::Each;
using ::testing::Field;
using ::testing::HasSubstr;

constexpr int kRanks = 2;
constexpr config::LatentShape kShape{4, 3, 8, 10};

class ProfileJob : public ::testing::Test {
 protected:
  std::string path() const { return folder_.path().string(); }

  profile::Report profile_training(const config::Job& job) const {
    TrainOptions options;
    options.profile_only = ProfileOnly{3, 1, path() + "/profile"};
    testing::train(job, options);
    return report();
  }

  profile::Report profile_sampling(const config::Job& job, SampleOptions options) const {
    options.profile_only = ProfileOnly{4, 1, path() + "/profile"};
    testing::run_ranks(kRanks, [&](std::unique_ptr<comm::Communicator> world) {
      run_sampling(job, std::move(world), options);
    });
    return report();
  }

 private:
  profile::Report report() const { return profile::read_report(path() + "/profile/profile.json"); }

  const testing::TemporaryFolder folder_;
};

void expect_whole_steps(const profile::Report& report) {
  EXPECT_TRUE(report.window.complete);
  ASSERT_EQ(report.ranks.size(), static_cast<size_t>(kRanks));
  for (const profile::RankRow& rank : report.ranks) {
    const double sum =
        rank.compute_ms + rank.exposed_ms + rank.copies_ms + rank.data_wait_ms + rank.other_ms;
    EXPECT_NEAR(sum, rank.step_ms, 1e-9 * rank.step_ms);
    EXPECT_GT(rank.compute_ms, 0);
  }
}

// Of attention, per rank and step.
double counted_bytes(const profile::Report& report, const std::string& phase) {
  double bytes = 0;
  for (const profile::OperationRow& row : report.operations) {
    if (row.group.starts_with("sp") && row.phase == phase) bytes += row.wire_bytes;
  }
  return bytes;
}

double planned_bytes(const config::Job& job, Phase phase) {
  const config::Cluster cluster = config::parse_cluster(
      "name: 'any' nodes: 1 devices: 2 memory_gib: 8 copy_gb_s: 8 call_us: 0\n"
      "link { class: INSIDE_NODE bandwidth_gb_s: 6 latency_us: 4 message_us: 0 duplex: FULL\n"
      "  adapter: PER_DEVICE overlap: 0 }\n"
      "rates { precision: FP32 attention_forward_tflops: 1 attention_backward_tflops: 1\n"
      "  attention_forward_row_ns: 0 attention_backward_row_ns: 0 linear_tflops: 1\n"
      "  selection_tflops: 1 peak_tflops: 1 }\n",
      "any");
  LayerPlanner planner(job, kShape, 0, {}, cluster_model(cluster, 0));
  const LayerPlan plan = planner.plan(job);
  const double micro_batches = static_cast<double>(job.training().global_batch()) /
                               static_cast<double>(job.training().micro_batch());
  double bytes = 0;
  for (int rank = 0; rank < kRanks; ++rank) bytes += static_cast<double>(plan.bytes(rank, phase));
  return bytes / kRanks * job.model().layers() * micro_batches;
}

class ProfiledMesh : public ProfileJob, public ::testing::WithParamInterface<const char*> {};

TEST_P(ProfiledMesh, CountsTheBytesThatThePlanSays) {
  const config::Job job = testing::tiny_job(path(), kRanks, {GetParam()});
  const profile::Report report = profile_training(job);
  expect_whole_steps(report);
  EXPECT_GT(counted_bytes(report, "forward"), 0);
  EXPECT_DOUBLE_EQ(counted_bytes(report, "forward"), planned_bytes(job, Phase::kForward));
  EXPECT_DOUBLE_EQ(counted_bytes(report, "backward"), planned_bytes(job, Phase::kBackward));
}

// What crosses there does not depend on what is selected.
INSTANTIATE_TEST_SUITE_P(Strategies, ProfiledMesh,
                         ::testing::Values("parallel { outer: 2 strategy: RING }",
                                           "parallel { outer: 2 strategy: ALL_GATHER }",
                                           "parallel { ulysses: 2 outer: 1 }"));

TEST_F(ProfileJob, AStepOfASamplingJobIsAnEvaluation) {
  const config::Job job = testing::tiny_job(path(), kRanks, {"parallel { outer: 2 }"});
  SampleOptions options;
  options.random_weights = true;
  const profile::Report report = profile_sampling(job, options);
  EXPECT_EQ(report.job.kind, "sample");
  // Four are recorded and four are not: more than the three of one video.
  EXPECT_EQ(report.window.steps, 4);
  expect_whole_steps(report);
  EXPECT_THAT(report.operations, Each(Field(&profile::OperationRow::phase, "sample")));
  ASSERT_TRUE(report.flops);
  ASSERT_TRUE(report.overhead);
  EXPECT_FALSE(std::filesystem::exists(path() + "/run"));
}

TEST_F(ProfileJob, ASamplingJobTakesTheWeightsOfACheckpoint) {
  const config::Job job = testing::tiny_job(path(), kRanks, {"training.steps: 2"});
  SampleOptions options;
  EXPECT_THROW(profile_sampling(job, options), InputError);
  testing::train(job);
  EXPECT_TRUE(profile_sampling(job, options).window.complete);
}

TEST_F(ProfileJob, ASamplingJobWithoutCheckpointAndDataHasNoShape) {
  config::Job job = testing::tiny_job(path(), kRanks);
  job.mutable_data()->clear_path();
  SampleOptions options;
  options.random_weights = true;
  try {
    profile_sampling(job, options);
    ADD_FAILURE() << "expected an error";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("data.path: expected a data set"));
  }
}

}  // namespace
}  // namespace sprocket::runtime

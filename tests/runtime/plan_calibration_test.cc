// `plan --measure` on ranks that are threads: figures of this machine, in a file that plan reads.
#include <gtest/gtest.h>

#include "base/error.h"
#include "runtime/planner/calibration.h"
#include "runtime/planner/plan_job.h"
#include "tests/comm/thread_ranks.h"

namespace sprocket::runtime {
namespace {

constexpr char kJob[] =
    "model { dim: 64 heads: 2 layers: 1 ffn_dim: 64 }\n"
    "attention { method: VSA vsa { sparsity { start: 0.5 } } }\n"
    "training { global_batch: 4 }\n";
const config::LatentShape kShape{16, 4, 16, 16};  // 4 x 8 x 8 tokens

TEST(Calibration, WritesAClusterThatPlanReads) {
  const config::LoadedJob loaded = config::parse_job(kJob, "job.txtpb", {}, {});
  CalibrationOptions options;
  options.devices = 2;
  std::vector<std::string> texts(4);
  comm::testing::run_ranks(4, [&](comm::Communicator& world) {
    texts[world.rank()] = config::to_text(calibrate(loaded.job, kShape, options, &world));
  });
  for (const std::string& text : texts) EXPECT_EQ(text, texts[0]);
  const config::Cluster cluster = config::parse_cluster(texts[0], "measured");
  EXPECT_EQ(cluster.nodes(), 2);
  EXPECT_EQ(cluster.devices(), 2);
  ASSERT_EQ(cluster.link_size(), 2);
  EXPECT_EQ(cluster.link(0).class_(), config::Link::INSIDE_NODE);
  EXPECT_EQ(cluster.link(1).class_(), config::Link::BETWEEN_NODES);
  EXPECT_EQ(cluster.rates(0).precision(), config::Compute::FP32);
  EXPECT_NE(run_plan(loaded, kShape, "data.latent", cluster, {}).find("Recommended: "),
            std::string::npos);
}

TEST(Calibration, AloneItHasNoLinks) {
  const config::LoadedJob loaded = config::parse_job(kJob, "job.txtpb", {}, {});
  const config::Cluster cluster = calibrate(loaded.job, kShape, {}, nullptr);
  EXPECT_EQ(cluster.nodes() * cluster.devices(), 1);
  EXPECT_EQ(cluster.link_size(), 0);
  EXPECT_NO_THROW(config::parse_cluster(config::to_text(cluster), "measured"));
}

TEST(Calibration, DevicesMustDivideTheRanks) {
  const config::LoadedJob loaded = config::parse_job(kJob, "job.txtpb", {}, {});
  CalibrationOptions options;
  options.devices = 2;
  EXPECT_THROW(
      comm::testing::run_ranks(
          3, [&](comm::Communicator& world) { calibrate(loaded.job, kShape, options, &world); }),
      std::exception);
}

}  // namespace
}  // namespace sprocket::runtime

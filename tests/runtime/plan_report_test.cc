// What `sprocket plan` prints, for one small case, word for word; and where selections come from.
#include <filesystem>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "runtime/plan/job_specs.h"
#include "runtime/planner/plan_job.h"
#include "runtime/profile/report.h"

namespace sprocket::runtime {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kCluster[] =
    "name: 'two small nodes' nodes: 2 devices: 2 memory_gib: 0.25 copy_gb_s: 8 call_us: 5\n"
    "link { class: INSIDE_NODE bandwidth_gb_s: 6 latency_us: 4 message_us: 1 duplex: FULL\n"
    "  adapter: PER_DEVICE overlap: 0 }\n"
    "link { class: BETWEEN_NODES bandwidth_gb_s: 0.1 latency_us: 100 message_us: 10 duplex: FULL\n"
    "  adapter: SHARED overlap: 0.5 }\n"
    "rates { precision: FP32 attention_forward_tflops: 0.2 attention_backward_tflops: 0.2 "
    "attention_forward_row_ns: 100 "
    "attention_backward_row_ns: 100\n"
    "  linear_tflops: 0.2 selection_tflops: 0.05 }\n";
constexpr char kJob[] =
    "model { dim: 256 heads: 4 layers: 4 ffn_dim: 1024 }\n"
    "attention { method: VSA domains: 4\n"
    "  max_coverage { start: 0.2 } budget_head_group: 2 vsa { sparsity { start: 0.9 } } }\n"
    "parallel { ulysses: 2 strategy: RING }\n";
const config::LatentShape kShape{16, 8, 32, 48};

std::string plan_text(const std::string& job, PlanOptions options) {
  const config::LoadedJob loaded = config::parse_job(job, "job.txtpb", {}, {});
  return run_plan(loaded, kShape, "data.latent", config::parse_cluster(kCluster, "c.txtpb"),
                  options);
}

TEST(PlanReport, IsFrozen) {
  PlanOptions options;
  options.all = true;
  const std::string text = plan_text(kJob, options);
  const std::string path = SPROCKET_SOURCE_DIR "/tests/runtime/golden/plan.txt";
  if (::testing::GTEST_FLAG(filter) == "PlanReport.IsFrozen" && std::getenv("UPDATE_GOLDEN")) {
    std::ofstream(path) << text;
  }
  std::ifstream stream(path);
  std::ostringstream golden;
  golden << stream.rdbuf();
  EXPECT_EQ(text, golden.str())
      << "the plan changed: UPDATE_GOLDEN=1 plan_test --gtest_filter=PlanReport.IsFrozen";
}

TEST(PlanReport, TopListsTheJobsOwnWayToo) {
  PlanOptions options;
  options.top = 1;
  const std::string text = plan_text(kJob, options);
  EXPECT_THAT(text, HasSubstr("* 1 x 2 x 2"));
  EXPECT_THAT(text, HasSubstr(" more (--top N, --all)"));
  EXPECT_THAT(text, Not(HasSubstr("Not legal")));
}

TEST(PlanReport, CsvHasEveryWay) {
  PlanOptions options;
  options.csv = ::testing::TempDir() + "/plan_report_test.csv";
  plan_text(kJob, options);
  std::ifstream stream(options.csv);
  std::string line;
  std::getline(stream, line);
  const auto columns = std::count(line.begin(), line.end(), ',');
  int rows = 0;
  while (std::getline(stream, line)) {
    ++rows;
    const std::string plain = line.substr(0, line.find('"'));
    EXPECT_EQ(std::count(plain.begin(), plain.end(), ','), columns) << line;
  }
  // 4 ranks: 3 meshes without an outer axis, 3 with one.
  EXPECT_EQ(rows, 3 + 3 * 5);
  std::filesystem::remove(options.csv);
}

TEST(PlanReport, SaysWhenNothingFitsOrIsLegal) {
  PlanOptions options;
  const std::string huge = plan_text(
      "model { dim: 5120 heads: 40 layers: 40 ffn_dim: 13824 } training { global_batch: 4 }",
      options);
  EXPECT_THAT(huge, HasSubstr("Nothing fits into 256 MiB of a device"));
  const std::string none =
      plan_text("model { dim: 256 heads: 1 } attention { domains: 3 }", options);
  EXPECT_THAT(none, HasSubstr("Nothing is legal on 4 ranks; --all says why."));
}

// A profile of the job with a rate, a density and a coverage that it would not have by itself.
profile::Report profile_of(const std::string& job) {
  profile::Report report;
  report.job = {"train", "", job, ""};
  report.mesh.outer = 2;
  report.kernels = {{"linear", "compute", "forward", 1, 1000, 0.125e12, {}}};
  profile::LayerRow layer;
  layer.density = profile::Range{0.25, 0.25, 0.25};
  layer.coverage = profile::Range{0.375, 0.375, 0.375};
  report.layers = {layer};
  return report;
}

std::string plan_from(const std::string& job, const profile::Report& report,
                      PlanOptions options = {}) {
  options.from = ::testing::TempDir() + "/plan_report_test_profile.json";
  std::ofstream(options.from) << profile::report_json(report);
  const std::string text = plan_text(job, options);
  std::filesystem::remove(options.from);
  return text;
}

TEST(PlanReport, FromAProfile) {
  const std::string text = plan_from(kJob, profile_of(kJob));
  EXPECT_THAT(text, HasSubstr("profile.json, in place of the cluster's\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("linear_tflops +0.125  linear \\(cluster: 0.2\\)"));
  EXPECT_THAT(text, ::testing::ContainsRegex("copy_gb_s +8  the cluster's: no kernel"));
  EXPECT_THAT(text, ::testing::ContainsRegex(
                        "selection +density 0.25, coverage 0.375 on 2 outer ranks, mean of"));
  EXPECT_THAT(text, HasSubstr("density 0.25 and coverage 0.375, measured\n"));
  // The same as with the figures given, and slower linear layers.
  PlanOptions given;
  given.selection.density = 0.25;
  given.selection.coverage = 0.375;
  const auto table = [](const std::string& plan) { return plan.substr(plan.find("Sent: by")); };
  EXPECT_NE(table(text), table(plan_text(kJob, given)));
  profile::Report no_rate = profile_of(kJob);
  no_rate.kernels.clear();
  EXPECT_EQ(table(plan_from(kJob, no_rate)), table(plan_text(kJob, given)));
}

TEST(PlanReport, FromAProfileOfAnotherSelection) {
  const std::string other =
      "model { dim: 256 heads: 4 layers: 4 ffn_dim: 1024 }\n"
      "attention { method: VSA vsa { sparsity { start: 0.5 } } }\n";
  EXPECT_THAT(plan_from(kJob, profile_of(other)),
              HasSubstr("not the profile's: its job has another attention"));
  const std::string dense = "model { dim: 256 heads: 4 layers: 4 ffn_dim: 1024 }\n";
  EXPECT_THAT(plan_from(dense, profile_of(dense)),
              HasSubstr("the method's own, which needs no data"));
  profile::Report one_rank = profile_of(other);
  one_rank.layers[0].coverage.reset();
  EXPECT_THAT(plan_from(other, one_rank),
              HasSubstr("density 0.25; of one outer rank there is no coverage: synthetic"));
  one_rank.layers.clear();
  EXPECT_THAT(plan_from(other, one_rank), HasSubstr("the profile has no density"));
}

TEST(PlanReport, RefusesProfilesOfOtherPrecisionsAndForeignFiles) {
  EXPECT_THROW(plan_from(kJob, profile_of(std::string(kJob) + "compute { precision: BF16 }")),
               ConfigError);
  EXPECT_THROW(plan_from(kJob, profile_of("model { dim: 1 ")), InputError);
  PlanOptions options;
  options.from = "/nowhere/profile.json";
  EXPECT_THROW(plan_text(kJob, options), InputError);
}

SelectionSource source_of(const std::string& attention, const SelectionOptions& options) {
  const config::LoadedJob loaded =
      config::parse_job("model { dim: 64 heads: 2 } " + attention, "job.txtpb", {}, {});
  const parallel::TokenLayout layout =
      parallel::make_token_layout(token_layout_spec(loaded.job, kShape));
  return selection_source(loaded.job, layout, 0, options);
}

TEST(SelectionSource, FollowsTheMethod) {
  EXPECT_EQ(source_of("", {}).table, nullptr);
  EXPECT_EQ(source_of("", {}).description, "every pair");
  const SelectionSource tiles = source_of("attention { method: SLIDING_TILE }", {});
  ASSERT_NE(tiles.table, nullptr);
  EXPECT_EQ(tiles.table->heads, 2);
  // 3 cubes of 2, 4 and 6 on the axes.
  EXPECT_DOUBLE_EQ(tiles.table->density(), 2 * 3 * 3 / 48.0);
  const SelectionSource vsa =
      source_of("attention { method: VSA vsa { sparsity { start: 0.875 } } }", {});
  EXPECT_DOUBLE_EQ(vsa.table->density(), 0.125);
  EXPECT_EQ(*vsa.table, *vsa.unbudgeted);
  const SelectionSource given = source_of("attention { method: VSA }", {.density = 0.25});
  EXPECT_DOUBLE_EQ(given.table->density(), 0.25);
  const SelectionSource figures =
      source_of("attention { method: VSA }", {.density = 0.25, .coverage = 0.5});
  EXPECT_EQ(figures.table, nullptr);
  EXPECT_EQ(figures.coverage, 0.5);
}

TEST(SelectionSource, RefusesFiguresOutOfRangeAndForeignFiles) {
  EXPECT_THROW(source_of("attention { method: VSA }", {.density = 0.0}), ConfigError);
  EXPECT_THROW(source_of("attention { method: VSA }", {.density = 0.5, .coverage = 1.5}),
               ConfigError);
  EXPECT_THROW(source_of("attention { method: VSA }", {.file = "/nowhere.safetensors"}),
               InputError);
}

}  // namespace
}  // namespace sprocket::runtime

#include "launcher/launch/host_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "launcher/launch/job_mesh.h"

namespace sprocket::launcher {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Words = std::vector<std::string>;

const std::vector<HostSlots> kHosts = {{"a", 2}, {"b.net", 2}, {"c", 2}};

std::string nothing_wrong(const parallel::MeshShape&) { return ""; }

TEST(HostRecord, AHostIsDueAfterSoManyFailuresWithoutACheckpoint) {
  HostRecord record(2);
  record.failed({"b"});
  EXPECT_THAT(record.due(kHosts), IsEmpty());
  record.failed({"a"});
  record.failed({});
  EXPECT_THAT(record.due(kHosts), IsEmpty());
  record.failed({"b", "c"});
  EXPECT_THAT(record.due(kHosts), ElementsAre("b.net"));
  record.failed({"c"});
  EXPECT_THAT(record.due(kHosts), ElementsAre("b.net", "c"));
  EXPECT_THAT(record.due({{"a", 2}}), IsEmpty()) << "those that were dropped";
  record.saved_a_checkpoint();
  EXPECT_THAT(record.due(kHosts), IsEmpty());
}

TEST(HostRecord, NoneIsDueWithoutALimit) {
  HostRecord record(0);
  for (int i = 0; i < 10; ++i) record.failed({"a"});
  EXPECT_THAT(record.due(kHosts), IsEmpty());
}

TEST(Retreat, SpareHostsTakeAllRanks) {
  const Retreat way = retreat(kHosts, {"a"}, {2, 2, 1}, [](const parallel::MeshShape&) {
    return std::string("need not be asked");
  });
  ASSERT_TRUE(way.possible) << way.why_not;
  EXPECT_THAT(way.hosts, ElementsAre(HostSlots{"b.net", 2}, HostSlots{"c", 2}));
  EXPECT_EQ(way.ranks, 4);
  EXPECT_EQ(way.data, 2);
}

TEST(Retreat, ElseTheHighestDataDegreeThatIsLegal) {
  const parallel::MeshShape mesh{6, 1, 1};
  const auto divides_six = [](const parallel::MeshShape& lower) {
    EXPECT_EQ(lower.sequence(), 1);
    return 6 % lower.data == 0 ? "" : "global_batch: 6";
  };
  Retreat way = retreat({{"a", 5}, {"b", 1}}, {"b"}, mesh, divides_six);
  ASSERT_TRUE(way.possible);
  EXPECT_EQ(way.ranks, 3);
  EXPECT_EQ(way.data, 3);
  way = retreat({{"a", 5}, {"b", 1}}, {"a"}, mesh, divides_six);
  ASSERT_TRUE(way.possible);
  EXPECT_EQ(way.ranks, 1);
}

TEST(Retreat, ImpossibleOnesSayWhy) {
  Retreat way = retreat(kHosts, {"a", "b.net"}, {1, 2, 2}, nothing_wrong);
  EXPECT_FALSE(way.possible);
  EXPECT_EQ(way.why_not,
            "the other hosts take 2 ranks, and one replica needs 4 (outer 2 x ulysses 2)");
  way = retreat(kHosts, {"a", "c"}, {4, 1, 1}, [](const parallel::MeshShape& lower) {
    return "not with " + std::to_string(lower.data);
  });
  EXPECT_FALSE(way.possible);
  EXPECT_EQ(way.why_not, "not with 2");
  way = retreat({{"a", 2}}, {"a"}, {1, 1, 1}, nothing_wrong);
  EXPECT_THAT(way.why_not, HasSubstr("take 0 ranks"));
}

Words quickstart(const std::string& sets) {
  return {
      "train",    "--resume", "latest", "--config", SPROCKET_SOURCE_DIR "/configs/quickstart.txtpb",
      "--output", "runs/x",   "--set",  sets};
}

TEST(JobMesh, IsThatOfTheJobFileAndTheCommandLine) {
  const Words job = quickstart("parallel.data: 2 parallel.ulysses: 2 training.global_batch: 4");
  EXPECT_EQ(mesh_of(job, 8), (parallel::MeshShape{2, 2, 2}));
  EXPECT_EQ(mesh_problem(job, {1, 2, 2}), "");
  EXPECT_EQ(mesh_of(with_data_degree(job, 1), 4), (parallel::MeshShape{1, 2, 2}));
  EXPECT_THROW(mesh_of(job, 3), ConfigError);
}

TEST(JobMesh, IsThatOfADistillationToo) {
  const Words job = {
      "distill",         "--config", SPROCKET_SOURCE_DIR "/configs/distill_quick.txtpb",
      "--output=runs/x", "--set",    "parallel.data: 2"};
  EXPECT_EQ(mesh_of(job, 4), (parallel::MeshShape{2, 2, 1}));
  EXPECT_EQ(mesh_problem(job, {1, 2, 1}), "");
}

TEST(JobMesh, ADataDegreeThatTheBatchDoesNotAllowIsAProblem) {
  const Words job = quickstart("parallel.data: 4 training.global_batch: 4");
  EXPECT_EQ(mesh_problem(job, {2, 1, 1}), "");
  EXPECT_THAT(mesh_problem(job, {3, 1, 1}), HasSubstr("training.global_batch"));
}

}  // namespace
}  // namespace sprocket::launcher

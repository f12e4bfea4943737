#include "launcher/launch/roll_call.h"
#include "base/host_name.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/data/temporary_folder.h"

namespace sprocket::launcher {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

StartPlan plan_of(const std::string& agent) {
  StartPlan plan;
  plan.ranks = 4;
  plan.hosts = {{"b", 2}, {"c", 2}, {"d", 2}};
  plan.folder = "/tmp";
  plan.program = "/bin/sh";
  plan.agent = agent;
  return plan;
}

// Runs the command here, on every host but c, which it says it cannot reach.
std::string agent(const sprocket::testing::TemporaryFolder& folder) {
  const std::string path = folder / "agent";
  sprocket::testing::write_bytes(
      path, "#!/bin/sh\n[ \"$1\" = c ] && exit 255\nshift\nexec /bin/sh -c \"$*\"\n");
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  return path;
}

TEST(RollCall, AsksAsSshIsAsked) {
  StartPlan plan = plan_of("ssh -o BatchMode=yes");
  plan.folder = "/data/my runs";
  EXPECT_THAT(question_to({"b", 2}, plan),
              ElementsAre("ssh", "-o", "BatchMode=yes", "b",
                          "sh -c 'cd '\\''/data/my runs'\\'' || exit 101; test -x /bin/sh || exit "
                          "102; test \"$(env -u OMP_NUM_THREADS nproc)\" -ge 2 || exit 103'"));
}

TEST(RollCall, ReasonsAreTold) {
  const StartPlan plan = plan_of("ssh");
  EXPECT_EQ(reason_of_absence(0, plan), "");
  EXPECT_EQ(reason_of_absence(103, plan), "");
  EXPECT_TRUE(means_crowded(103));
  EXPECT_FALSE(means_crowded(0));
  EXPECT_EQ(reason_of_absence(255, plan), "cannot be reached by \"ssh\" (exit code 255)");
  EXPECT_EQ(reason_of_absence(101, plan), "does not see the working folder /tmp");
  EXPECT_EQ(reason_of_absence(102, plan), "has no program /bin/sh");
  EXPECT_EQ(reason_of_absence({}, plan), "has not answered for 30 s by \"ssh\"");
}

TEST(RollCall, HostsThatTheRanksNeedAreAsked) {
  const AskedToEnd asked;
  const sprocket::testing::TemporaryFolder folder;
  StartPlan plan = plan_of(agent(folder));
  const auto call = [&] { return call_hosts(plan, std::chrono::seconds(0), asked); };
  const std::vector<Absence> absences = call().absences;
  EXPECT_THAT(hosts_of(absences), ElementsAre("c"));
  EXPECT_THAT(words_of(absences), AllOf(HasSubstr("host c cannot be reached"), HasSubstr("255")));
  plan.ranks = 2;
  EXPECT_THAT(call().absences, IsEmpty());
  plan.program = "/nowhere/sprocket";
  EXPECT_EQ(words_of(call().absences), "host b has no program /nowhere/sprocket");
  plan.program = "/bin/sh";
  EXPECT_THAT(call().crowded, IsEmpty());
  plan.hosts[0].slots = 1 << 20;
  EXPECT_THAT(call().crowded, ElementsAre("b"));
  plan.hosts[0].name = "localhost";
  plan.program = "/nowhere/sprocket";
  EXPECT_THAT(call().absences, IsEmpty()) << "this host is not asked";
  EXPECT_THAT(call().crowded, ElementsAre("localhost"));
}

TEST(RollCall, ThisHostGoesByItsNameAndItsAddresses) {
  const std::string own = own_host_name();
  EXPECT_TRUE(is_this_host(own));
  EXPECT_TRUE(is_this_host("127.0.0.1"));
  EXPECT_FALSE(is_this_host("not-" + own));
}

}  // namespace
}  // namespace sprocket::launcher

#include "launcher/launch/start_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <fstream>

#include "base/error.h"
#include "tests/data/temporary_folder.h"

namespace sprocket::launcher {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

using Words = std::vector<std::string>;

std::string refusal(const std::function<void()>& work) {
  try {
    work();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

StartPlan plan_of(int ranks, int processors) {
  StartPlan plan;
  plan.ranks = ranks;
  plan.processors = processors;
  plan.folder = "/work";
  plan.program = "/bin/sprocket";
  return plan;
}

TEST(Hosts, AreReadAsMpirunReadsThem) {
  EXPECT_THAT(parse_hosts("a:8,b-2.net:16,c"),
              ElementsAre(HostSlots{"a", 8}, HostSlots{"b-2.net", 16}, HostSlots{"c", 1}));
  EXPECT_EQ(total_slots(parse_hosts("a:8,b:2")), 10);
}

TEST(Hosts, ThoseInFrontAreUsedFirst) {
  const std::vector<HostSlots> hosts = parse_hosts("a:8,b:2,c:2");
  EXPECT_THAT(hosts_for(hosts, 8), ElementsAre(HostSlots{"a", 8}));
  EXPECT_THAT(hosts_for(hosts, 9), ElementsAre(HostSlots{"a", 8}, HostSlots{"b", 2}));
  EXPECT_EQ(hosts_for(hosts, 13).size(), 3u);
}

TEST(Hosts, ADomainMakesNoOtherHost) {
  EXPECT_TRUE(same_host("node7", "node7"));
  EXPECT_TRUE(same_host("node7", "node7.cluster.net"));
  EXPECT_TRUE(same_host("node7.cluster.net", "node7"));
  EXPECT_FALSE(same_host("node7.a.net", "node7.b.net"));
  EXPECT_FALSE(same_host("node7", "node70"));
  EXPECT_FALSE(same_host("10", "10.0.0.1"));
  EXPECT_FALSE(same_host("", ".net"));
}

TEST(Hosts, ImpossibleOnesAreRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "expected the name of a host, found \"\""},
      {"a,,b", "expected the name of a host, found \"\""},
      {"a:8,a:4", "a is named twice"},
      {"a:8,a.net:4", "a.net is named twice, first as a"},
      {"a:0", "expected a number of ranks from 1"},
      {"a:-1", "expected a number of ranks from 1"},
      {"a:8x", "expected a number of ranks from 1"},
      {"a:99999999999", "expected a number of ranks from 1"},
      {"-x", "expected the name of a host"},
      {"a b:2", "expected the name of a host"},
      {"a;reboot", "expected the name of a host"},
  };
  for (const auto& [text, what] : cases) {
    EXPECT_THAT(refusal([&] { parse_hosts(text); }), HasSubstr(what)) << text;
  }
}

TEST(Hosts, AHostfileNamesItsLines) {
  const sprocket::testing::TemporaryFolder folder;
  const std::string good = folder / "hosts", bad = folder / "bad", none = folder / "none";
  sprocket::testing::write_bytes(good, "# ours\na slots=8\n\nb   # one\n");
  EXPECT_THAT(read_hostfile(good), ElementsAre(HostSlots{"a", 8}, HostSlots{"b", 1}));
  sprocket::testing::write_bytes(bad, "a slots=8\nb cores=4\n");
  EXPECT_THAT(refusal([&] { read_hostfile(bad); }), HasSubstr(bad + ":2: expected NAME slots=N"));
  sprocket::testing::write_bytes(none, "# none\n");
  EXPECT_THAT(refusal([&] { read_hostfile(none); }), HasSubstr("found none"));
  EXPECT_THAT(refusal([&] { read_hostfile("/nowhere/hosts"); }), HasSubstr("cannot read"));
}

TEST(StartCommand, OnThisHost) {
  const Words job = {"train", "--config", "job.txtpb"};
  EXPECT_THAT(start_command(plan_of(2, 4), job),
              ElementsAre("mpirun", "-np", "2", "--oversubscribe", "--bind-to", "none",
                          "/bin/sprocket", "train", "--config", "job.txtpb"));
  const StartPlan crowded = plan_of(4, 2);
  EXPECT_TRUE(is_oversubscribed(crowded));
  EXPECT_THAT(shell_line(start_command(crowded, job)), HasSubstr("--mca mpi_yield_when_idle 1"));
}

TEST(StartCommand, OnOtherHosts) {
  StartPlan plan = plan_of(10, 1);
  plan.hosts = parse_hosts("a:8,b:2");
  plan.exported = {"PATH"};
  EXPECT_FALSE(is_oversubscribed(plan));
  EXPECT_EQ(
      shell_line(start_command(plan, {"train"})),
      "mpirun -np 10 --host a:8,b:2 --mca oob_tcp_keepalive_time 10 --mca "
      "oob_tcp_keepalive_intvl 5 --mca oob_tcp_keepalive_probes 4 --bind-to none --wdir /work "
      "-x PATH /bin/sprocket train");
  EXPECT_EQ(refusal([&] { check_start_plan(plan); }), "");
  plan.ranks = 11;
  EXPECT_THAT(refusal([&] { check_start_plan(plan); }), HasSubstr("--np 11: the hosts take 10"));
  plan.ranks = 8;
  plan.agent = "ssh -o BatchMode=yes";
  EXPECT_THAT(shell_line(start_command(plan, {"train"})),
              ::testing::AllOf(HasSubstr("--host a:8 "),
                               HasSubstr("--mca plm_rsh_agent 'ssh -o BatchMode=yes' ")))
      << "b is spare";
  plan.crowded = true;
  EXPECT_THAT(shell_line(start_command(plan, {"train"})), HasSubstr("--mca mpi_yield_when_idle 1"));
  plan.agent = "ssh : rsh";
  EXPECT_THAT(refusal([&] { check_start_plan(plan); }), HasSubstr("without a colon"));
}

TEST(StartCommand, UnderSlurm) {
  StartPlan plan = plan_of(16, 1);
  plan.starter = Starter::kSrun;
  EXPECT_FALSE(is_oversubscribed(plan));
  EXPECT_THAT(
      start_command(plan, {"train"}),
      ::testing::AllOf(::testing::Contains("srun"), ::testing::Contains("--ntasks=16"),
                       ::testing::Contains("--kill-on-bad-exit=1"), ::testing::Contains("train")));
  const std::string script =
      sbatch_script(plan, "sprocket-train", {"/bin/sprocket", "launch", "--", "train", "a b"});
  EXPECT_EQ(
      script,
      "#!/bin/bash\n#SBATCH --job-name=sprocket-train\n#SBATCH --ntasks=16\n"
      "# 300 s before the time limit the job is asked to save and to end.\n"
      "#SBATCH --signal=B:TERM@300\n"
      "# After the loss of a node it is started again, and goes on from the newest checkpoint.\n"
      "#SBATCH --requeue\n#SBATCH --open-mode=append\ncd /work || exit 4\n"
      "exec /bin/sprocket launch -- train 'a b'\n");
}

TEST(StartCommand, ShellsReadWhatWasMeant) {
  EXPECT_EQ(shell_line({"a", "", "it's", "$(x)", "a=b,c:d"}), "a '' 'it'\\''s' '$(x)' a=b,c:d");
}

TEST(StartCommand, ResumeIsReplaced) {
  EXPECT_THAT(with_resume({"train", "--config", "a"}, "latest"),
              ElementsAre("train", "--config", "a", "--resume", "latest"));
  EXPECT_THAT(with_resume({"train", "--resume", "none", "--config", "a"}, "latest"),
              ElementsAre("train", "--config", "a", "--resume", "latest"));
  EXPECT_THAT(with_resume({"train", "--resume=runs/x", "--config", "a"}, "latest"),
              ElementsAre("train", "--config", "a", "--resume", "latest"));
  EXPECT_EQ(resume_of({"train", "--resume=runs/x"}, "none"), "runs/x");
  EXPECT_EQ(resume_of({"train", "--resume", "latest"}, "none"), "latest");
  EXPECT_EQ(resume_of({"train"}, "none"), "none");
  EXPECT_THAT(with_contact({"train", "--config"}, "f"),
              ElementsAre("train", "--supervised", "f", "--config"));
}

}  // namespace
}  // namespace sprocket::launcher

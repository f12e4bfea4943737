#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "launcher/doctor/clocks.h"
#include "launcher/doctor/devices.h"
#include "launcher/doctor/machine.h"
#include "launcher/doctor/message_passing.h"
#include "launcher/doctor/network.h"
#include "launcher/doctor/pairs.h"
#include "launcher/doctor/ranks.h"

namespace sprocket::launcher {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr double kGiga = 1e9;

RankReport report(int rank, const std::string& host) {
  RankReport made;
  made.rank = rank;
  made.host = host;
  made.program = "sprocket 1";
  made.mpi = "Open MPI 4";
  made.cores = {0, 1, 2, 3};
  made.shared_memory = 1024 * kMiB;
  made.copy_rate = 10 * kGiga;
  return made;
}

// Two ranks on each host, as mpirun numbers them.
std::vector<RankReport> reports_of(int ranks) {
  std::vector<RankReport> reports;
  for (int rank = 0; rank < ranks; ++rank) {
    reports.push_back(report(rank, "node" + std::to_string(rank / 2)));
  }
  return reports;
}

PairTime time_of(int first, int second, double gigabytes, double latency = 1e-6) {
  return {{first, second}, latency, gigabytes * kGiga};
}

TEST(RankReport, TravelsAsText) {
  RankReport sent = report(3, "node \"a\"");
  sent.link_rate = 1.25e9;
  sent.findings = {{Verdict::kAdvice, "open files", "512 — few", "raise it"}};
  const RankReport received = report_of(text_of(sent));
  EXPECT_EQ(text_of(received), text_of(sent));
  EXPECT_EQ(received.cores, sent.cores);
  EXPECT_EQ(received.findings[0].verdict, Verdict::kAdvice);
  EXPECT_THROW(report_of("{}"), InternalError);
}

TEST(RankReport, RanksAreNamedByHost) {
  const auto reports = reports_of(20);
  EXPECT_EQ(names_of({3}, reports), "rank 3 (node1)");
  EXPECT_EQ(names_of({0, 1, 3}, reports), "ranks 0-1 (node0), 3 (node1)");
  std::vector<int> all(20);
  for (int rank = 0; rank < 20; ++rank) all[rank] = rank;
  EXPECT_THAT(names_of(all, reports), HasSubstr("10-11 (node5) and of 4 more hosts"));
}

TEST(MergedFindings, SayOnceWhatIsTheSame) {
  auto reports = reports_of(4);
  for (RankReport& each : reports) {
    each.findings = {{Verdict::kGood, "open files", "4096", ""},
                     {Verdict::kGood, "memory", std::to_string(each.rank) + " GiB", ""}};
  }
  reports[2].findings[0] = {Verdict::kAdvice, "open files", "512", "ulimit -n 4096"};
  const auto merged = merge_findings(reports);
  ASSERT_EQ(merged.size(), 3u);
  EXPECT_EQ(merged[0].found, "4096; ranks 0-1 (node0), 3 (node1)");
  EXPECT_EQ(merged[1].found, "512; rank 2 (node1)");
  EXPECT_EQ(merged[1].remedy, "ulimit -n 4096");
  EXPECT_EQ(merged[2].found, "0 GiB; on rank 0, others alike");
}

TEST(Ranks, OtherVersionsAreAProblem) {
  auto reports = reports_of(4);
  EXPECT_EQ(judge_versions(reports).verdict, Verdict::kGood);
  reports[3].mpi = "Open MPI 5";
  const Finding finding = judge_versions(reports);
  EXPECT_EQ(finding.verdict, Verdict::kProblem);
  EXPECT_THAT(finding.found, AllOf(HasSubstr("rank 3 (node1): sprocket 1; Open MPI 5"),
                                   HasSubstr("ranks 0-1 (node0), 2 (node1): sprocket 1")));
}

TEST(Ranks, MoreOfThemThanProcessorsOfAHost) {
  auto reports = reports_of(4);
  EXPECT_EQ(judge_cores_per_rank(reports).found,
            "node0: 2 ranks on 4 processors, node1: 2 ranks on 4 processors");
  // Bound to the same one.
  reports[2].cores = reports[3].cores = {5};
  const Finding finding = judge_cores_per_rank(reports);
  EXPECT_EQ(finding.verdict, Verdict::kAdvice);
  EXPECT_EQ(finding.found, "node1: 2 ranks on 1 processor");
  EXPECT_THAT(find_crowded(reports), ElementsAre(false, false, true, true));
  reports[3].cores = {6};
  EXPECT_EQ(judge_cores_per_rank(reports).verdict, Verdict::kGood);
}

TEST(Ranks, SharedMemoryIsForAllOfAHost) {
  auto reports = reports_of(4);
  EXPECT_EQ(judge_shared_memory_of_ranks(reports).verdict, Verdict::kGood);
  reports[2].shared_memory = 63 * kMiB;
  const Finding finding = judge_shared_memory_of_ranks(reports);
  EXPECT_EQ(finding.verdict, Verdict::kAdvice);
  EXPECT_EQ(finding.found,
            "31 MiB for each rank of node1; less than 32 MiB for each: ranks 2-3 (node1)");
  EXPECT_THAT(finding.remedy, HasSubstr("--shm-size"));
}

TEST(Clocks, AnOffsetIsKnownToHalfTheRoundTrip) {
  const ClockOffset ahead = offset_of(1, 1'000'000, 501'500'000, 2'000'000);
  EXPECT_DOUBLE_EQ(ahead.seconds, 0.5);
  EXPECT_DOUBLE_EQ(ahead.error, 0.0005);
  EXPECT_DOUBLE_EQ(offset_of(1, 1'000'000, 1'500'000, 2'000'000).seconds, 0);
  EXPECT_LT(offset_of(1, 5'000'000, 1'000'000, 6'000'000).seconds, 0);
}

TEST(Clocks, OffsetsBeyondTheirErrorAreNamed) {
  const auto reports = reports_of(4);
  EXPECT_EQ(judge_clock_offsets({}, reports).found, "one rank");
  const Finding good =
      judge_clock_offsets({{1, 1e-6, 1e-5}, {2, -2e-3, 1e-4}, {3, .5, .45}}, reports);
  EXPECT_EQ(good.verdict, Verdict::kGood);
  EXPECT_THAT(good.found, HasSubstr("rank 3 (node1), by +500.000 ms, known to 450.000 ms"));
  const Finding off = judge_clock_offsets({{1, 0, 1e-5}, {2, -3600, 1e-4}, {3, .2, 1e-4}}, reports);
  EXPECT_EQ(off.verdict, Verdict::kAdvice);
  EXPECT_THAT(off.found, AllOf(HasSubstr("-3600000.000 ms"),
                               HasSubstr("more than 100 ms off: ranks 2-3 (node1)")));
  EXPECT_THAT(off.remedy, HasSubstr("chrony"));
}

TEST(Clocks, AStepIsSeen) {
  EXPECT_EQ(judge_clock_run({2, 2.0001, 2.001}).verdict, Verdict::kGood);
  EXPECT_THAT(judge_clock_run({2, 2, 2, true}).found, HasSubstr("went backwards"));
  EXPECT_THAT(judge_clock_run({2.5, 2, 2.5}).found, HasSubstr("2.500 s in 2.000 s"));
  const Finding set = judge_clock_run({2, 2, -3});
  EXPECT_EQ(set.verdict, Verdict::kAdvice);
  EXPECT_THAT(set.found, HasSubstr("stepped by -5.000 s"));
  ClockWatch watch;
  EXPECT_FALSE(watch.elapsed().backwards);
}

TEST(Pairs, AllOfAFewRanksAndASampleOfMany) {
  EXPECT_THAT(plan_pairs(3), ElementsAre(RankPair{0, 1}, RankPair{0, 2}, RankPair{1, 2}));
  EXPECT_TRUE(plan_pairs(1).empty());
  EXPECT_EQ(plan_pairs(8).size(), 28u);
  const auto sample = plan_pairs(9);
  EXPECT_EQ(sample.size(), 12u);
  EXPECT_THAT(sample, testing::Contains(RankPair{7, 8}));
  EXPECT_THAT(sample, testing::Contains(RankPair{3, 7}));
}

TEST(Pairs, SlowOnesAreNamed) {
  const auto reports = reports_of(4);
  const std::vector<bool> roomy(4, false);
  const auto good = judge_pairs({time_of(0, 1, 4), time_of(2, 3, 5)}, reports, roomy);
  ASSERT_EQ(good.size(), 1u);
  EXPECT_EQ(good[0].verdict, Verdict::kGood);
  EXPECT_THAT(good[0].found, HasSubstr("expected at least 1.5 GB/s, 15 % of a copy in memory"));
  // Below the share of a copy.
  const auto slow = judge_pairs({time_of(0, 1, 4), time_of(2, 3, 1.4)}, reports, roomy);
  EXPECT_EQ(slow[0].verdict, Verdict::kAdvice);
  EXPECT_THAT(slow[0].found, HasSubstr("2 pairs: 4 GB/s (slowest 1.4 GB/s), 1 us (longest 1 us); "
                                       "expected at least 1.5 GB/s, 15 % "
                                       "of a copy in memory; slow: 2-3 1.4 GB/s, 1 us"));
  EXPECT_FALSE(slow[0].remedy.empty());
  // Ranks that share processors wait for each other, whatever the link.
  const auto crowded =
      judge_pairs({time_of(0, 1, 4), time_of(2, 3, 1.4)}, reports, {false, false, true, true});
  EXPECT_EQ(crowded[0].verdict, Verdict::kGood);
  EXPECT_THAT(crowded[0].found, HasSubstr("not judged"));
}

TEST(Pairs, OfTwoHostsAreHeldAgainstTheSlowerAdapter) {
  auto reports = reports_of(4);
  const std::vector<bool> roomy(4, false);
  const std::vector<PairTime> times = {time_of(0, 2, 1, 3e-5), time_of(0, 3, 1.1, 3e-5),
                                       time_of(1, 2, .3, 3e-5), time_of(1, 3, 1.1, 2e-3)};
  // By each other alone.
  const auto unknown = judge_pairs(times, reports, roomy);
  ASSERT_EQ(unknown.size(), 1u);
  EXPECT_EQ(unknown[0].subject, "pairs of hosts");
  EXPECT_THAT(unknown[0].found,
              AllOf(HasSubstr("no expectation"), HasSubstr("slow: 1-2 0.3 GB/s, 30 us; 1-3 1.1"),
                    Not(HasSubstr("0-2 "))));
  for (RankReport& each : reports) each.link_rate = 12.5 * kGiga;
  reports[2].link_rate = 1.25 * kGiga;
  const auto told = judge_pairs(times, reports, roomy);
  EXPECT_THAT(told[0].found,
              AllOf(HasSubstr("at least 0.625 GB/s, 50 % of the slowest adapter's speed"),
                    HasSubstr("slow: 1-2 0.3 GB/s, 30 us; 0-3 1.1"), Not(HasSubstr("0-2 "))));
  EXPECT_THAT(told[0].remedy, HasSubstr("btl_tcp_if_include"));
}

TEST(Network, TheFastestAdapterThatIsUp) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(testing::TempDir()) / "doctor_net";
  fs::remove_all(folder);
  const auto add = [&](const char* name, const char* state, const char* speed) {
    fs::create_directories(folder / name);
    std::ofstream(folder / name / "operstate") << state << "\n";
    if (speed) std::ofstream(folder / name / "speed") << speed << "\n";
  };
  EXPECT_EQ(fastest_link_rate(folder), 0);
  add("lo", "up", "400000");
  add("eth1", "down", "100000");
  add("eth2", "up", "-1");
  add("eth3", "up", nullptr);
  EXPECT_EQ(fastest_link_rate(folder), 0);
  add("eth4", "up", "1000");
  add("eth5", "up", "10000");
  EXPECT_DOUBLE_EQ(fastest_link_rate(folder), 1.25e9);
  fs::remove_all(folder);
}

TEST(Doctor, TransportsAreReadFromWhatIsLoaded) {
  const std::string maps =
      "1-2 r-xp 0 08:01 1 /usr/lib/openmpi/mca_btl_vader.so\n"
      "2-3 r-xp 0 08:01 2 /usr/lib/openmpi/mca_btl_tcp.so\n"
      "3-4 r-xp 0 08:01 3 /usr/lib/openmpi/mca_pml_ob1.so\n"
      "4-5 r-xp 0 08:01 4 /usr/lib/openmpi/mca_coll_basic.so\n";
  EXPECT_EQ(describe_transports(maps).found, "pml ob1; btl tcp, vader");
  EXPECT_THAT(describe_transports("").found, HasSubstr("not to be told"));
}

TEST(Doctor, DevicesAndTheirLibraries) {
  DeviceFacts facts{13000, 13000, 13010, 22809, 22809, {"A", "B"}, ""};
  const auto good = judge_devices(facts);
  ASSERT_EQ(good.size(), 3u);
  EXPECT_FALSE(any_problem(good));
  EXPECT_EQ(good[0].found, "headers 13.0, runtime 13.0, driver for up to 13.1");
  EXPECT_EQ(good[1].found, "headers 2.28.9, library 2.28.9");
  EXPECT_EQ(good[2].found, "2: A, B");
  facts.cuda_driver = 12040;
  facts.nccl_library = 22105;
  const auto old = judge_devices(facts);
  EXPECT_EQ(old[0].verdict, Verdict::kProblem);
  EXPECT_THAT(old[0].remedy, HasSubstr("driver to one for CUDA 13"));
  EXPECT_EQ(old[1].verdict, Verdict::kProblem);
  facts.cuda_driver = 0;
  facts.devices.clear();
  facts.error = "no device";
  const auto none = judge_devices(facts);
  EXPECT_EQ(none[0].verdict, Verdict::kAdvice);
  EXPECT_EQ(none[2].found, "none: no device");
}

TEST(Doctor, LimitsOfThreadsAndStacks) {
  EXPECT_EQ(judge_stack(8 * kMiB).verdict, Verdict::kGood);
  EXPECT_EQ(judge_stack(kMiB).verdict, Verdict::kAdvice);
  EXPECT_EQ(judge_processes(-1).found, "unlimited");
  EXPECT_EQ(judge_processes(500).verdict, Verdict::kAdvice);
  EXPECT_EQ(judge_processes(100).verdict, Verdict::kProblem);
  EXPECT_THAT(judge_core_files(0).found, HasSubstr("none"));
}

}  // namespace
}  // namespace sprocket::launcher

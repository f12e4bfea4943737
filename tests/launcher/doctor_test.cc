#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launcher/doctor/libraries.h"
#include "launcher/doctor/machine.h"
#include "launcher/doctor/message_passing.h"
#include "launcher/placement.h"

namespace sprocket::launcher {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kGiB = int64_t{1} << 30;

TEST(Doctor, SharedMemory) {
  EXPECT_EQ(judge_shared_memory(8 * kGiB, 16 * kGiB).verdict, Verdict::kGood);
  EXPECT_EQ(judge_shared_memory(64 * kMiB, 64 * kMiB).verdict, Verdict::kAdvice);
  const Finding full = judge_shared_memory(1 * kMiB, 64 * kMiB);
  EXPECT_EQ(full.verdict, Verdict::kProblem);
  EXPECT_EQ(full.found, "/dev/shm: 1 MiB free of 64 MiB");
  EXPECT_THAT(full.remedy, HasSubstr("--shm-size"));
}

TEST(Doctor, Memory) {
  EXPECT_EQ(judge_memory(20 * kGiB, 24 * kGiB, -1).found, "20 GiB available of 24 GiB");
  EXPECT_EQ(judge_memory(20 * kGiB, 24 * kGiB, 64 * kGiB).verdict, Verdict::kGood);
  const Finding limited = judge_memory(20 * kGiB, 24 * kGiB, 2 * kGiB);
  EXPECT_EQ(limited.verdict, Verdict::kAdvice);
  EXPECT_THAT(limited.found, HasSubstr("limited to 2048 MiB by the control group"));
}

TEST(Doctor, Limits) {
  EXPECT_EQ(judge_open_files(-1).verdict, Verdict::kGood);
  EXPECT_EQ(judge_open_files(1024).verdict, Verdict::kGood);
  EXPECT_EQ(judge_open_files(512).verdict, Verdict::kAdvice);
  EXPECT_EQ(judge_open_files(64).verdict, Verdict::kProblem);
  EXPECT_EQ(judge_locked_memory(64 * 1024).verdict, Verdict::kAdvice);
  EXPECT_EQ(judge_locked_memory(-1).found, "unlimited");
}

TEST(Doctor, Cores) {
  EXPECT_EQ(judge_cores(2, 2, 0).found, "2 of 2 online usable");
  EXPECT_EQ(judge_cores(16, 64, 0).verdict, Verdict::kGood);
  const Finding throttled = judge_cores(16, 16, 2.5);
  EXPECT_EQ(throttled.verdict, Verdict::kAdvice);
  EXPECT_THAT(throttled.found, HasSubstr("grants 2.5"));
  EXPECT_THAT(throttled.remedy, HasSubstr("at most 2"));
}

TEST(Doctor, InstructionSet) {
  EXPECT_EQ(judge_instruction_set("AVX-512", "fpu avx512f avx512_bf16").verdict, Verdict::kGood);
  EXPECT_EQ(judge_instruction_set("AVX-512", "avx512f avx512_bf16x").verdict, Verdict::kAdvice);
  EXPECT_EQ(judge_instruction_set("AVX2", "avx2").found, "AVX2 without bf16 dot products");
}

TEST(Doctor, TwoCopiesOfALibraryAreAProblem) {
  const std::string maps =
      "7f00-7f01 r-xp 00000000 08:01 11 /usr/lib/libgomp.so.1.0.0\n"
      "7f01-7f02 r--p 00000000 08:01 11 /usr/lib/libgomp.so.1.0.0\n"
      "7f02-7f03 rw-p 00000000 00:00 0 [heap]\n"
      "7f03-7f04 r-xp 00000000 08:01 12 /opt/torch/lib/libgomp-a34b.so.1\n"
      "7f04-7f05 r-xp 00000000 08:01 13 /opt/libgomp/lib/libother.so\n";
  const auto files = loaded_files(maps, "libgomp");
  EXPECT_THAT(files, ElementsAre("/opt/torch/lib/libgomp-a34b.so.1", "/usr/lib/libgomp.so.1.0.0"));
  EXPECT_EQ(judge_single_copy("OpenMP runtime", files, true).verdict, Verdict::kProblem);
  EXPECT_EQ(judge_single_copy("OpenMP runtime", {files[0]}, true).verdict, Verdict::kGood);
  EXPECT_EQ(judge_single_copy("OpenMP runtime", {}, true).verdict, Verdict::kProblem);
  EXPECT_EQ(judge_single_copy("NCCL", {}, false).verdict, Verdict::kGood);
}

TEST(Doctor, MpirunMustBeThereAndMayRefuseRoot) {
  EXPECT_EQ(judge_mpirun("/nowhere:/nor/here", false).verdict, Verdict::kProblem);
  EXPECT_THAT(judge_mpirun("", false).remedy, HasSubstr("openmpi-bin"));
  EXPECT_EQ(judge_mpirun("/nowhere:/usr/bin", false).found, "/usr/bin/mpirun");
  EXPECT_THAT(judge_mpirun("/usr/bin", true).remedy, HasSubstr("OMPI_ALLOW_RUN_AS_ROOT=1"));
}

TEST(Doctor, TheTableAlignsAndEndsWithItsMeaning) {
  std::vector<Finding> findings = {{Verdict::kGood, "memory", "lots", ""},
                                   {Verdict::kAdvice, "open files", "512", "raise it"}};
  EXPECT_EQ(format_findings(findings),
            "ok       memory      lots\n"
            "advice   open files  512\n"
            "                     -> raise it\n"
            "\n"
            "Jobs can run on this machine (2 checks, 1 with advice).\n");
  EXPECT_FALSE(any_problem(findings));
  findings.push_back({Verdict::kProblem, "MPI", "broken", "mend it"});
  EXPECT_TRUE(any_problem(findings));
  EXPECT_THAT(format_findings(findings), HasSubstr("1 of 3 checks failed"));
}

TEST(Placement, BoundRanksKeepTheirCoresAndOthersDivide) {
  const auto place = [](uint64_t host, uint64_t cores) {
    return Placement{host, std::bitset<1024>(cores)};
  };
  // Two ranks bound to a core each; two that share four; one alone on another host.
  const std::vector<Placement> ranks = {place(1, 0b0001), place(1, 0b0010), place(2, 0b1111),
                                        place(2, 0b1111), place(3, 0b1111)};
  EXPECT_EQ(threads_for(0, ranks), 1);
  EXPECT_EQ(threads_for(1, ranks), 1);
  EXPECT_EQ(threads_for(2, ranks), 2);
  EXPECT_EQ(threads_for(4, ranks), 4);
  const std::vector<Placement> crowded(5, place(1, 0b11));
  EXPECT_EQ(threads_for(4, crowded), 1);
  EXPECT_GE(own_placement().usable_cores.count(), 1u);
}

// The ranks of a host look at slightly different moments; all of them must get the same.
TEST(Placement, RanksAreCountedOnTheirHost) {
  const std::vector<Placement> ranks = {{7}, {3}, {7}, {3}, {7}, {9}};
  const int rank[] = {0, 0, 1, 1, 2, 0}, count[] = {3, 2, 3, 2, 3, 1};
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(local_rank(i, ranks).rank, rank[i]) << i;
    EXPECT_EQ(local_rank(i, ranks).ranks, count[i]) << i;
  }
}

TEST(Placement, RanksOfAHostDivideItsMemory) {
  const auto place = [](uint64_t host, int64_t memory) { return Placement{host, {}, memory}; };
  const std::vector<Placement> ranks = {place(1, 100), place(2, 50), place(1, 90), place(1, 99)};
  for (const int rank : {0, 2, 3}) EXPECT_EQ(memory_for(rank, ranks), 30);
  EXPECT_EQ(memory_for(1, ranks), 50);
  EXPECT_GT(own_placement().memory, 0);
}

}  // namespace
}  // namespace sprocket::launcher

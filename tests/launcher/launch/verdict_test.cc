#include "launcher/launch/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <csignal>

#include "tests/launcher/launch/watched_job.h"

namespace sprocket::launcher {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kKilled = 128 + SIGKILL;
constexpr int kDaemonLost = 205;  // of Open MPI

JobWatch joined_job(int ranks = 2, const std::string& host = "here") {
  JobWatch watch(ranks, {});
  for (int rank = 0; rank < ranks; ++rank) watch.take(joined(rank, rank == 0 ? "here" : host));
  return watch;
}

AttemptFacts ended(int status) {
  AttemptFacts facts;
  facts.status = status;
  facts.own_host = "here";
  return facts;
}

void expect(const Verdict& verdict, Ending ending, ExitCode code, bool retry) {
  EXPECT_STREQ(name_of(verdict.ending), name_of(ending)) << verdict.sentence;
  EXPECT_EQ(static_cast<int>(verdict.code), static_cast<int>(code));
  EXPECT_EQ(verdict.retry, retry);
}

TEST(Verdict, DoneIsWhatAllRanksSay) {
  JobWatch watch = joined_job();
  watch.take(finished(0));
  watch.take(finished(1));
  expect(judge(ended(0), watch), Ending::kDone, ExitCode::kOk, false);
  // --help, for example, has no ranks that report.
  expect(judge(ended(0), JobWatch(2, {})), Ending::kDone, ExitCode::kOk, false);
}

TEST(Verdict, ARankThatEndsEarlyWithoutAWordHasCrashed) {
  JobWatch watch = joined_job();
  watch.take(lost(1));
  watch.take(finished(0));
  const Verdict verdict = judge(ended(0), watch);
  expect(verdict, Ending::kCrash, ExitCode::kComm, true);
  EXPECT_EQ(verdict.sentence, "rank 1 (here, process 1001) ended with exit code 0");
}

TEST(Verdict, OnlyTheFirstDeadRankIsNamedWithItsSignal) {
  JobWatch watch = joined_job(4);
  watch.take(lost(2));
  watch.take(lost(0));
  watch.take(failed(1, ExitCode::kComm, "a peer is gone", true));
  const Verdict verdict = judge(ended(kKilled), watch);
  expect(verdict, Ending::kCrash, ExitCode::kComm, true);
  EXPECT_EQ(verdict.sentence, "rank 2 (here, process 1002) was ended by SIGKILL (Killed)");
}

TEST(Verdict, ARankThatDiedBeforeItReportedIsNamedBesideTheFirstThatWasLost) {
  JobWatch watch(3, {});
  watch.take(joined(0));
  watch.take(joined(2));
  watch.take(lost(2));
  watch.take(lost(0));
  EXPECT_EQ(judge(ended(kKilled), watch).sentence,
            "rank 1, of which nothing was heard yet, or rank 2 (here, process 1002) was ended by "
            "SIGKILL (Killed)");
}

TEST(Verdict, AKillOfTheKernelForMemory) {
  JobWatch watch = joined_job();
  watch.take(lost(1));
  AttemptFacts facts = ended(kKilled);
  facts.processes_killed_for_memory = 1;
  expect(judge(facts, watch), Ending::kOutOfMemory, ExitCode::kComm, true);
  facts.status = 128 + SIGSEGV;
  expect(judge(facts, watch), Ending::kCrash, ExitCode::kComm, true);
}

TEST(Verdict, AHostWithAllItsRanks) {
  JobWatch watch = joined_job(3, "there");
  watch.take(lost(1));
  expect(judge(ended(1), watch), Ending::kCrash, ExitCode::kComm, true);
  watch.take(lost(2));
  const Verdict verdict = judge(ended(1), watch);
  expect(verdict, Ending::kNodeLoss, ExitCode::kComm, true);
  EXPECT_THAT(verdict.sentence, HasSubstr("host there is gone"));
  EXPECT_THAT(verdict.hosts, ElementsAre("there"));
  // mpirun ends the others of that host, too.
  expect(judge(ended(kKilled), watch), Ending::kCrash, ExitCode::kComm, true);
}

TEST(Verdict, AHostThatFallsSilent) {
  JobWatch watch = joined_job(3, "there");
  for (int i = 0; i < 10; ++i) {
    watch.tick(1);
    watch.take(beat(0, 1, 1, true));
  }
  AttemptFacts facts = ended(kDaemonLost);
  Verdict verdict = judge(facts, watch);
  watch.take(lost(0));  // mpirun has ended it
  verdict = judge(facts, watch);
  expect(verdict, Ending::kNodeLoss, ExitCode::kComm, true);
  EXPECT_EQ(verdict.sentence, "host there is not heard any more");
  EXPECT_THAT(verdict.hosts, ElementsAre("there"));
  facts.hang = "rank 1 silent";
  verdict = judge(facts, watch);
  expect(verdict, Ending::kNodeLoss, ExitCode::kComm, true);
  EXPECT_EQ(verdict.sentence, "host there is not heard any more: rank 1 silent");
}

TEST(Verdict, RanksThatCannotReportDoNotSpoilASuccess) {
  JobWatch watch(2, {});
  watch.take(joined(0));
  watch.take(finished(0));
  expect(judge(ended(0), watch), Ending::kDone, ExitCode::kOk, false);
}

TEST(Verdict, ErrorsThatComeAgainAreNotTriedAgain) {
  const std::tuple<ExitCode, Ending, bool> cases[] = {
      {ExitCode::kConfig, Ending::kConfiguration, false},
      {ExitCode::kInput, Ending::kData, false},
      {ExitCode::kOutput, Ending::kOutput, false},
      {ExitCode::kNonFinite, Ending::kNumbers, false},
      {ExitCode::kInternal, Ending::kCrash, true},
      {ExitCode::kCuda, Ending::kCrash, true},
      {ExitCode::kComm, Ending::kCrash, true},
  };
  for (const auto& [code, ending, retry] : cases) {
    JobWatch watch = joined_job();
    watch.take(failed(1, code, "what it said"));
    expect(judge(ended(static_cast<int>(code)), watch), ending, code, retry);
  }
}

TEST(Verdict, MemoryThatARankCouldNotHave) {
  JobWatch watch = joined_job();
  control::Report report = failed(1, ExitCode::kInternal, "std::bad_alloc");
  report.message.mutable_error()->set_out_of_memory(true);
  watch.take(report);
  expect(judge(ended(1), watch), Ending::kOutOfMemory, ExitCode::kInternal, true);
}

TEST(Verdict, AHangIsSaidInItsSentence) {
  AttemptFacts facts = ended(kKilled);
  facts.hang = "rank 1 silent";
  const Verdict verdict = judge(facts, joined_job());
  expect(verdict, Ending::kHang, ExitCode::kComm, true);
  EXPECT_EQ(verdict.sentence, "rank 1 silent");
}

TEST(Verdict, WhatWasAskedForIsNotTriedAgain) {
  AttemptFacts facts = ended(75);
  facts.stop_asked = true;
  expect(judge(facts, joined_job()), Ending::kInterrupted, ExitCode::kInterrupted, false);
  JobWatch watch = joined_job();
  watch.take(lost(1));
  facts.status = kKilled;
  EXPECT_FALSE(judge(facts, watch).retry);
  facts.abort_asked = true;
  expect(judge(facts, watch), Ending::kAborted, ExitCode::kAborted, false);
}

TEST(Verdict, RanksThatNeverCameToLife) {
  expect(judge(ended(1), JobWatch(2, {})), Ending::kNotStarted, ExitCode::kConfig, false);
  AttemptFacts facts = ended(1);
  facts.started_before = true;
  expect(judge(facts, JobWatch(2, {})), Ending::kNotStarted, ExitCode::kComm, true);
  // Killed before it could report.
  expect(judge(ended(kKilled), JobWatch(2, {})), Ending::kCrash, ExitCode::kComm, true);
}

}  // namespace
}  // namespace sprocket::launcher

#include "launcher/launch/job_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/launcher/launch/watched_job.h"

namespace sprocket::launcher {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

constexpr int kRanks = 4;

SectionLimits short_limits() {
  SectionLimits limits;
  limits[control::Section::kInit] = 60;
  limits[control::Section::kStep] = 10;
  return limits;
}

class JobWatchTest : public ::testing::Test {
 protected:
  JobWatchTest() : watch_(kRanks, short_limits()) {}

  void join_all() {
    for (int rank = 0; rank < kRanks; ++rank) watch_.take(joined(rank));
  }
  // Half seconds, in each of which every rank but `but` repeats its last words.
  void pass(double seconds, int but = -1) {
    for (double gone = 0; gone < seconds; gone += 0.5) {
      watch_.tick(0.5);
      for (int rank = 0; rank < kRanks; ++rank) {
        if (rank == but) continue;
        control::Report report{control::Report::Kind::kMessage, rank, {}, ""};
        *report.message.mutable_heartbeat() = watch_.ranks()[rank].beat;
        watch_.take(report);
      }
    }
  }

  JobWatch watch_;
};

TEST_F(JobWatchTest, AStoppedRankIsNamedAndWhatTheOthersWaitIn) {
  join_all();
  for (int rank = 0; rank < kRanks; ++rank) watch_.take(beat(rank, 9, rank == 2 ? 40 : 41, true));
  pass(9.5, 2);
  EXPECT_FALSE(watch_.is_hung());
  pass(1, 2);
  EXPECT_TRUE(watch_.is_hung());
  EXPECT_EQ(watch_.hang_sentence(),
            "rank 2 (here, process 1002) silent for 10.5 s; last seen in section step, in exchange "
            "#40 of sp.outer[0] (layer 3, backward, step 9); the others wait in exchange #41 of "
            "sp.outer[0] (layer 3, backward, step 9)");
}

TEST_F(JobWatchTest, ARankThatWaitsForNobodyIsBlamedBeforeThoseThatWait) {
  join_all();
  for (int rank = 0; rank < kRanks; ++rank)
    watch_.take(beat(rank, 9, rank == 1 ? 40 : 41, rank != 1));
  pass(11);
  EXPECT_TRUE(watch_.is_hung());
  EXPECT_THAT(watch_.hang_sentence(),
              AllOf(StartsWith("rank 1 (here, process 1001) without progress for 11.0 s"),
                    HasSubstr("after exchange #40"), HasSubstr("the others wait in exchange #41")));
}

TEST_F(JobWatchTest, ARankThatIsBehindInAGroupIsBlamed) {
  join_all();
  for (int rank = 0; rank < kRanks; ++rank) watch_.take(beat(rank, 9, rank == 3 ? 40 : 41, true));
  pass(11);
  EXPECT_THAT(watch_.hang_sentence(), StartsWith("rank 3 "));
}

TEST_F(JobWatchTest, RanksInTheSameOperationAreAllBlamedByNone) {
  join_all();
  for (int rank = 0; rank < kRanks; ++rank) watch_.take(beat(rank, 9, 41, true));
  pass(11);
  EXPECT_THAT(watch_.hang_sentence(), StartsWith("no rank has made progress for 11.0 s"));
}

TEST_F(JobWatchTest, ProgressOfAnyRankIsProgress) {
  join_all();
  for (int64_t step = 0; step < 20; ++step) {
    watch_.take(beat(0, step, 10 * step, false));
    pass(2);
    EXPECT_FALSE(watch_.is_hung());
  }
}

TEST_F(JobWatchTest, EachSectionHasItsLimit) {
  join_all();
  pass(59);
  EXPECT_FALSE(watch_.is_hung());
  pass(2);
  EXPECT_TRUE(watch_.is_hung());
  EXPECT_THAT(watch_.hang_sentence(), HasSubstr("section init"));
}

TEST_F(JobWatchTest, RanksThatNeverCameAreNamed) {
  for (int rank = 0; rank < kRanks; ++rank) {
    if (rank != 3) watch_.take(joined(rank));
  }
  pass(61, 3);
  EXPECT_TRUE(watch_.is_hung());
  EXPECT_THAT(watch_.hang_sentence(), StartsWith("rank 3 never reported in 61.0 s"));
}

TEST_F(JobWatchTest, ALostControlConnectionIsNoHang) {
  join_all();
  for (int rank = 0; rank < kRanks; ++rank) watch_.take(lost(rank));
  for (int i = 0; i < 100; ++i) watch_.tick(1);
  EXPECT_FALSE(watch_.is_hung());
  watch_.take(joined(0));
  EXPECT_FALSE(watch_.is_hung());
}

TEST_F(JobWatchTest, ASupervisorThatSleptBlamesNobody) {
  join_all();
  for (int rank = 0; rank < kRanks; ++rank) watch_.take(beat(rank, 9, 41, true));
  watch_.tick(3600);
  EXPECT_FALSE(watch_.is_hung());
}

TEST_F(JobWatchTest, ARankThatComesBackIsNoticed) {
  join_all();
  for (int rank = 0; rank < kRanks; ++rank) watch_.take(beat(rank, 9, 41, true));
  pass(7, 2);
  EXPECT_TRUE(watch_.take_returns().empty());
  watch_.take(beat(2, 10, 42, false));
  const std::vector<Return> back = watch_.take_returns();
  ASSERT_EQ(back.size(), 1u);
  EXPECT_EQ(back[0].rank, 2);
  EXPECT_DOUBLE_EQ(back[0].silent, 7);
  EXPECT_EQ(watch_.sentence(back[0]),
            "rank 2 (here, process 1002) is heard again after 7.0 s of silence: a straggler, the "
            "others waited 7.0 s for it");
  EXPECT_FALSE(watch_.is_hung());
}

TEST_F(JobWatchTest, ThoseThatWaitedMayBeHeardFirst) {
  join_all();
  for (int rank = 0; rank < kRanks; ++rank) watch_.take(beat(rank, 9, 41, true));
  pass(7, 2);
  for (const int rank : {0, 3}) watch_.take(beat(rank, 10, 42, false));
  watch_.tick(0.5);
  watch_.take(beat(2, 10, 42, false));
  const std::vector<Return> back = watch_.take_returns();
  ASSERT_EQ(back.size(), 1u);
  EXPECT_DOUBLE_EQ(back[0].silent, 7.5);
  EXPECT_DOUBLE_EQ(back[0].waited, 7);
}

TEST_F(JobWatchTest, ASilentRankThatNobodyWaitedForIsNoStraggler) {
  join_all();
  for (int64_t step = 0; step < 14; ++step) {
    for (const int rank : {0, 1, 3}) watch_.take(beat(rank, step, 10 * step, false));
    pass(0.5, 2);
  }
  watch_.take(beat(2, 14, 140, false));
  const std::vector<Return> back = watch_.take_returns();
  ASSERT_EQ(back.size(), 1u);
  EXPECT_THAT(watch_.sentence(back[0]), Not(HasSubstr("straggler")));
}

TEST_F(JobWatchTest, AHostThatIsNotHeardHasALimitOfItsOwn) {
  SectionLimits limits;
  limits.silence = 30;
  JobWatch watch(kRanks, limits);
  for (int rank = 0; rank < kRanks; ++rank) watch.take(joined(rank, rank < 2 ? "here" : "there"));
  const auto hear = [&](double seconds, const std::vector<int>& ranks) {
    for (double gone = 0; gone < seconds; gone += 0.5) {
      watch.tick(0.5);
      for (const int rank : ranks) watch.take(beat(rank, 9, 41, true));
    }
  };
  hear(20, {0, 1, 2, 3});
  hear(28, {0, 1, 2});
  EXPECT_THAT(watch.silent_hosts(), IsEmpty()) << "one of its ranks is heard";
  hear(20, {0, 1});
  EXPECT_THAT(watch.silent_hosts(), ElementsAre("there"));
  EXPECT_TRUE(watch.is_hung()) << "for 48 s nobody has made progress";
  EXPECT_THAT(watch.suspected_hosts(), ElementsAre("there"));
  watch.take(beat(0, 10, 42, true));
  hear(20, {0, 1});
  EXPECT_FALSE(watch.is_hung()) << "the others make progress";
  hear(40, {});
  EXPECT_FALSE(watch.is_hung()) << "nobody is heard: the supervisor's own network may be gone";
}

TEST_F(JobWatchTest, RanksThatDoNotReportAreToldAfterAMinute) {
  watch_.tick(100);
  EXPECT_THAT(watch_.missing_ranks(), IsEmpty());
  for (const int rank : {0, 1, 3}) watch_.take(joined(rank));
  for (int i = 0; i < 59; ++i) watch_.tick(1);
  EXPECT_THAT(watch_.missing_ranks(), IsEmpty());
  watch_.tick(1);
  EXPECT_THAT(watch_.missing_ranks(), ElementsAre(2));
}

TEST_F(JobWatchTest, OfSeveralThatAreLostTheFirstIsToldApart) {
  join_all();
  watch_.take(lost(3));
  watch_.take(lost(0));
  EXPECT_EQ(watch_.first_lost(), 3);
  watch_.take(joined(3));
  EXPECT_EQ(watch_.first_lost(), 0);
  watch_.take(finished(1));
  watch_.take(lost(1));
  EXPECT_EQ(watch_.first_lost(), 0);
}

TEST_F(JobWatchTest, AnErrorOfItsOwnComesBeforeThoseOfPeers) {
  join_all();
  EXPECT_EQ(watch_.first_error(), std::nullopt);
  watch_.take(failed(0, ExitCode::kComm, "aborted", true));
  EXPECT_EQ(watch_.first_error(), 0);
  watch_.take(failed(2, ExitCode::kInternal, "broken"));
  EXPECT_EQ(watch_.first_error(), 2);
}

TEST_F(JobWatchTest, TheReportHasWhatRanksAnsweredAndWhoDidNot) {
  join_all();
  for (int rank = 0; rank < kRanks; ++rank) watch_.take(beat(rank, 9, 41, true));
  control::Report dump{control::Report::Kind::kMessage, 1, {}, ""};
  for (int64_t sequence : {39, 40}) {
    *dump.message.mutable_dump()->add_operation() =
        beat(1, 9, sequence, false).message.heartbeat().operation(0);
  }
  watch_.take(dump);
  const std::string report = watch_.hang_report();
  EXPECT_THAT(report, AllOf(HasSubstr("exchange #39 of sp.outer[0]"),
                            HasSubstr("completed 0.100 s "
                                      "ago"),
                            HasSubstr("rank 0 (here, process 1000): section step"),
                            HasSubstr("it did not answer")));
  EXPECT_THAT(report.substr(report.find("rank 1 (")), Not(StartsWith("rank 1 (here, process 1001): "
                                                                     "it did not")));
}

}  // namespace
}  // namespace sprocket::launcher

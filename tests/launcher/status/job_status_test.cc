#include "launcher/status/job_status.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <limits>

#include "base/error.h"
#include "launcher/status/status_json.h"
#include "tests/launcher/launch/watched_job.h"
#include "tests/launcher/status/example_status.h"

namespace sprocket::launcher {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int kRanks = 3;

JobFacts facts() {
  JobFacts facts;
  facts.job = {"train", "--config", "a b.txtpb"};
  facts.ranks = kRanks;
  facts.host = "here";
  facts.process = 77;
  facts.seconds = 100;
  return facts;
}

// Steps of which the rank waited for the others in `exposed` seconds of each.
control::Report steps(int rank, int64_t done, double wall, double exposed) {
  control::Report report = beat(rank, done, 10 * done, false);
  control::Heartbeat& heartbeat = *report.message.mutable_heartbeat();
  heartbeat.set_loss(.5);
  heartbeat.set_total_steps(200);
  heartbeat.set_tokens(4096);
  heartbeat.set_memory_bytes(1000 + rank);
  heartbeat.set_folder("/data/run");
  for (int64_t step = std::max<int64_t>(1, done - 4); step <= done; ++step) {
    control::StepTime& time = *heartbeat.add_step_time();
    time.set_step(step);
    time.set_wall_us(std::llround(1e6 * wall));
    time.set_exposed_us(std::llround(1e6 * exposed));
  }
  return report;
}

class JobStatusTest : public ::testing::Test {
 protected:
  void join_all() {
    for (int rank = 0; rank < kRanks; ++rank) watch_.take(joined(rank));
  }
  void run_to(int64_t step) {
    for (int rank = 0; rank < kRanks; ++rank) {
      watch_.take(steps(rank, step, 2, rank == 1 ? .25 : 1));
    }
  }

  JobWatch watch_{kRanks, {}};
};

TEST_F(JobStatusTest, BeforeAnythingIsHeard) {
  const JobStatus status = make_status(facts(), &watch_);
  EXPECT_EQ(status.state, JobState::kStarting);
  EXPECT_EQ(status.command, "train --config 'a b.txtpb'");
  EXPECT_EQ(status.step, -1);
  EXPECT_FALSE(status.loss);
  EXPECT_FALSE(status.slowest_rank);
  ASSERT_EQ(status.ranks.size(), 3u);
  EXPECT_EQ(status.ranks[2].rank, 2);
  EXPECT_EQ(status.ranks[2].process, 0);
  EXPECT_EQ(trouble_of(status), "");
}

TEST_F(JobStatusTest, AJobThatMakesSteps) {
  join_all();
  run_to(50);
  watch_.tick(.5);
  JobFacts known = facts();
  known.checkpoint_step = 40;
  known.checkpoint_at = 90;
  const JobStatus status = make_status(known, &watch_);
  EXPECT_EQ(status.state, JobState::kRunning);
  EXPECT_EQ(status.folder, "/data/run");
  EXPECT_EQ(status.step, 50);
  EXPECT_EQ(status.total_steps, 200);
  EXPECT_EQ(status.loss, .5);
  EXPECT_DOUBLE_EQ(*status.step_seconds, 2);
  EXPECT_DOUBLE_EQ(*status.tokens_per_second, 2048);
  EXPECT_DOUBLE_EQ(*status.eta_seconds, 300);
  EXPECT_DOUBLE_EQ(*status.exposed_share, (.5 + .125 + .5) / 3);
  EXPECT_EQ(status.slowest_rank, 1);
  EXPECT_EQ(status.checkpoint_age, 10);
  EXPECT_EQ(status.idle_seconds, .5);
  EXPECT_EQ(status.idle_limit, 600);
  const RankStatus& rank = status.ranks[1];
  EXPECT_EQ(rank.host, "here");
  EXPECT_EQ(rank.process, 1001);
  EXPECT_TRUE(rank.connected);
  EXPECT_EQ(rank.section, "step");
  EXPECT_EQ(rank.operation, "exchange #500 of sp.outer[0] (layer 3, backward, step 50)");
  EXPECT_FALSE(rank.in_operation);
  EXPECT_EQ(rank.memory_bytes, 1001);
  EXPECT_EQ(rank.silent_seconds, .5);
  EXPECT_DOUBLE_EQ(*rank.own_seconds, 1.75);
}

TEST_F(JobStatusTest, TheStragglerIsTheWatchs) {
  join_all();
  for (int64_t step = 1; step < 30; ++step) {
    run_to(step);
    watch_.tick(2);
  }
  const JobStatus status = make_status(facts(), &watch_);
  EXPECT_EQ(status.straggler, 1);
  EXPECT_THAT(status.straggler_sentence, StartsWith("rank 1 (here, process 1001): "));
}

TEST_F(JobStatusTest, States) {
  join_all();
  EXPECT_EQ(make_status(facts(), &watch_).state, JobState::kStarting);
  run_to(1);
  JobFacts known = facts();
  known.stop_asked = true;
  EXPECT_EQ(make_status(known, &watch_).state, JobState::kStopping);
  known.last_failure = "hang: rank 2 silent";
  known.restarts = 1;
  const JobStatus waiting = make_status(known, nullptr);
  EXPECT_EQ(waiting.state, JobState::kWaiting);
  EXPECT_EQ(waiting.ranks.size(), 3u);
  EXPECT_EQ(waiting.restarts, 1);
}

TEST_F(JobStatusTest, WhenItIsInTrouble) {
  join_all();
  run_to(1);
  EXPECT_EQ(trouble_of(make_status(facts(), &watch_)), "");
  for (int i = 0; i < 150; ++i) watch_.tick(2);
  EXPECT_EQ(trouble_of(make_status(facts(), &watch_)), "");
  watch_.tick(2);
  EXPECT_EQ(trouble_of(make_status(facts(), &watch_)),
            "no rank has made progress for 302 s; 600 s count as a hang");
  run_to(2);
  watch_.take(lost(2));
  EXPECT_EQ(trouble_of(make_status(facts(), &watch_)), "rank 2 is lost");
  JobFacts known = facts();
  known.last_failure = "crash: x";
  EXPECT_EQ(trouble_of(make_status(known, nullptr)), "the job waits to be started again: crash: x");
}

TEST_F(JobStatusTest, NumbersThatAreNoneAreUnknown) {
  join_all();
  control::Report report = steps(0, 5, 1, 0);
  report.message.mutable_heartbeat()->set_loss(std::numeric_limits<double>::quiet_NaN());
  watch_.take(report);
  EXPECT_FALSE(make_status(facts(), &watch_).loss);
}

TEST(StatusJson, IsReadBack) {
  const std::string text = to_json(example_status());
  EXPECT_EQ(to_json(status_of_json(text, "here")), text);
  JobStatus unknown;
  unknown.ranks.resize(1);
  EXPECT_EQ(to_json(status_of_json(to_json(unknown), "here")), to_json(unknown));
}

TEST(StatusJson, WhatIsNoneIsRefused) {
  const std::string good = to_json(example_status());
  std::string newer = good, state = good;
  newer.replace(newer.find("\"schema\":1"), 10, "\"schema\":9");
  state.replace(state.find("\"running\""), 9, "\"jogging\"");
  const std::pair<std::string, const char*> cases[] = {
      {"", "something else"},          {"{}", "something else"},
      {"[1, 2]", "something else"},    {good.substr(0, good.size() / 2), "else"},
      {newer, "schema 9, expected 1"}, {state, "\"jogging\" is no state"}};
  for (const auto& [text, what] : cases) {
    try {
      status_of_json(text, "http://x");
      FAIL() << text;
    } catch (const InputError& error) {
      EXPECT_THAT(error.what(), StartsWith("http://x: expected the status of a job"));
      EXPECT_THAT(error.what(), HasSubstr(what));
    }
  }
}

}  // namespace
}  // namespace sprocket::launcher

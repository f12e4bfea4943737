// Reports of recorder files whose every metric is known in closed form.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "runtime/profile/merge.h"
#include "runtime/profile/report_text.h"
#include "tests/profile/synthetic_events.h"

namespace sprocket::profile {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::SyntheticStep;
using testing::write_synthetic;

constexpr int64_t kMs = 1'000'000, kHour = 3'600'000 * kMs;

class Merge : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  std::string events() const { return folder_.string(); }
  std::string trace() const { return (folder_ / "trace.json").string(); }
  std::string file(int rank) const { return event_file_path(events(), rank); }

  void cut(int rank, int64_t bytes_left_out) const {
    fs::resize_file(file(rank), fs::file_size(file(rank)) - bytes_left_out);
  }
  void flip(int rank, int64_t from_end) const {
    std::fstream file(this->file(rank), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-from_end, std::ios::end);
    const char byte = static_cast<char>(file.get() ^ 0x40);
    file.seekp(-from_end, std::ios::end);
    file.put(byte);
  }

  fs::path folder_;
};

// Rank 0 computes 40 and 20 ms, rank 1 50 and 20; exchanges begin 10 ms before the compute ends and
// take 15 after the last one has begun.
//
//   rank 0: load 5, compute 5-45, exchange 35-60; rank 1: load 5, compute 5-55, exchange 45-60
//   both: copy 60-63, compute 63-83, exchange 73-88, compute 88-92, sum 92-107
SyntheticStep two_ranks() {
  SyntheticStep step;
  step.ranks = {{0, 5 * kMs, {40 * kMs, 20 * kMs}, 3 * kMs, 4 * kMs},
                {7 * kHour, 5 * kMs, {50 * kMs, 20 * kMs}, 3 * kMs, 4 * kMs}};
  step.overlap = 10 * kMs;
  step.transfer = 15 * kMs;
  return step;
}

TEST_F(Merge, EveryMetricEqualsItsClosedForm) {
  write_synthetic(events(), two_ranks(), 3);
  const Report r = merge_events(events(), {});
  EXPECT_EQ(r.window.steps, 3);
  EXPECT_TRUE(r.window.complete);
  EXPECT_TRUE(r.window.notes.empty()) << r.window.notes.front();
  EXPECT_DOUBLE_EQ(r.step.seconds, 0.107);
  EXPECT_DOUBLE_EQ(r.step.median_seconds, 0.107);
  EXPECT_DOUBLE_EQ(r.step.tokens_per_second, 20 / 0.107);

  const RankRow &a = r.ranks[0], &b = r.ranks[1];
  EXPECT_DOUBLE_EQ(a.step_ms, 107);
  EXPECT_DOUBLE_EQ(a.compute_ms, 40 + 20 + 4);
  EXPECT_DOUBLE_EQ(b.compute_ms, 50 + 20 + 4);
  EXPECT_DOUBLE_EQ(a.communication_ms, 25 + 15 + 15);
  EXPECT_DOUBLE_EQ(b.communication_ms, 15 + 15 + 15);
  EXPECT_DOUBLE_EQ(a.exposed_ms, 15 + 5 + 15);
  EXPECT_DOUBLE_EQ(b.exposed_ms, 5 + 5 + 15);
  EXPECT_DOUBLE_EQ(a.copies_ms, 3);
  EXPECT_DOUBLE_EQ(a.data_wait_ms, 5);
  EXPECT_DOUBLE_EQ(a.other_ms, 0);
  EXPECT_DOUBLE_EQ(b.other_ms, 0);
  EXPECT_DOUBLE_EQ(a.wait_ms, 10);
  EXPECT_DOUBLE_EQ(a.caused_wait_ms, 0);
  EXPECT_DOUBLE_EQ(b.wait_ms, 0);
  EXPECT_DOUBLE_EQ(b.caused_wait_ms, 10);
  EXPECT_DOUBLE_EQ(a.sent_bytes, 2400);
  for (const RankRow& row : r.ranks) {
    EXPECT_DOUBLE_EQ(
        row.compute_ms + row.exposed_ms + row.copies_ms + row.data_wait_ms + row.other_ms,
        row.step_ms);
  }
  EXPECT_DOUBLE_EQ(r.shares.compute, 138 / 214.0);
  EXPECT_DOUBLE_EQ(r.shares.exposed_communication, 60 / 214.0);
  EXPECT_DOUBLE_EQ(r.shares.overlap, 40 / 100.0);
  EXPECT_DOUBLE_EQ(r.shares.waiting, 10 / 214.0);
  EXPECT_THAT(r.each.waiting, ElementsAre(5, 5, 5));

  ASSERT_EQ(r.operations.size(), 2u);
  const OperationRow &exchange = r.operations[0], &sum = r.operations[1];
  EXPECT_EQ(exchange.op, "exchange");
  EXPECT_DOUBLE_EQ(exchange.calls, 2);
  EXPECT_DOUBLE_EQ(exchange.transfer_ms, 30);
  EXPECT_DOUBLE_EQ(exchange.wait_ms, 5);
  EXPECT_DOUBLE_EQ(exchange.matched, 1);
  EXPECT_DOUBLE_EQ(exchange.payload_bytes, 2000);
  EXPECT_DOUBLE_EQ(exchange.between_nodes_bytes, 2000);
  EXPECT_DOUBLE_EQ(*exchange.busbw_gb_s, 1000 / 15e6);
  EXPECT_DOUBLE_EQ(*sum.busbw_gb_s, 400 / 15e6);  // 2 (n - 1) / n is 1 for two ranks

  ASSERT_EQ(r.layers.size(), 2u);
  EXPECT_DOUBLE_EQ(r.layers[0].compute_ms, 45);
  EXPECT_DOUBLE_EQ(r.layers[0].communication_ms, 20);
  EXPECT_DOUBLE_EQ(r.layers[0].exposed_ms, 10);
  EXPECT_DOUBLE_EQ(r.layers[0].wait_ms, 5);
  EXPECT_DOUBLE_EQ(r.layers[0].imbalance, 50 / 45.0 - 1);
  EXPECT_EQ(r.layers[0].slowest_rank, 1);
  EXPECT_EQ(r.layers[0].density, (Range{.5, .5, .5}));
  EXPECT_THAT(r.heads->density, ElementsAre(ElementsAre(.5), ElementsAre(.5)));
  EXPECT_THAT(*r.heads->coverage, ElementsAre(ElementsAre(.25), ElementsAre(.25)));

  EXPECT_THAT(r.bytes, ElementsAre(ElementsAre(0, 2400), ElementsAre(2400, 0)));
  ASSERT_EQ(r.slowest.size(), 9u);
  EXPECT_DOUBLE_EQ(r.slowest[0].ms, 25);
  EXPECT_EQ(r.slowest[0].late_rank, 1);
  ASSERT_EQ(r.kernels.size(), 3u);
  EXPECT_EQ(r.kernels[0].name, "attention.local");
  EXPECT_DOUBLE_EQ(r.kernels[0].calls, 2);
  EXPECT_DOUBLE_EQ(r.kernels[0].ms, 65);
  EXPECT_EQ(r.memory->rank, 1);
  EXPECT_EQ(r.memory->rest_bytes, 601);
}

TEST_F(Merge, ClocksThatAreHoursApartChangeNothing) {
  SyntheticStep apart = two_ranks(), together = two_ranks();
  apart.ranks[0].clock = -3 * kHour;
  together.ranks[1].clock = 0;
  write_synthetic(events(), apart, 2);
  const Report a = merge_events(events(), {});
  write_synthetic(events(), together, 2);
  EXPECT_EQ(merge_events(events(), {}), a);
}

// Rank r computes r ms more than rank 0 in layer 1: all wait for the last one.
TEST_F(Merge, StragglersAreFoundOnAnyNumberOfRanks) {
  for (const int world : {2, 3, 5, 8, 64}) {
    SyntheticStep step;
    for (int r = 0; r < world; ++r) {
      step.ranks.push_back({r * kHour, 0, {10 * kMs, (10 + r) * kMs}, 0, 0});
    }
    step.transfer = 2 * kMs;
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    write_synthetic(events(), step, 2);
    const Report r = merge_events(events(), {});
    for (int rank = 0; rank < world; ++rank) {
      EXPECT_NEAR(r.ranks[rank].wait_ms, world - 1 - rank, 1e-9) << world;
      EXPECT_NEAR(r.ranks[rank].caused_wait_ms, rank == world - 1 ? world * (world - 1) / 2.0 : 0,
                  1e-9);
    }
    EXPECT_NEAR(r.layers[1].imbalance, (9.0 + world) / (10 + (world - 1) / 2.0) - 1, 1e-9);
  }
}

TEST_F(Merge, TheTraceHasEveryEventAndJoinsOperations) {
  write_synthetic(events(), two_ranks(), 2);
  MergeOptions options;
  options.trace = trace();
  merge_events(events(), options);
  std::ifstream file(trace());
  const auto trace = nlohmann::json::parse(file);
  std::map<std::string, int> count;
  std::map<int, double> step_begin;
  for (const auto& event : trace.at("traceEvents")) {
    ++count[event.at("ph")];
    if (event.at("ph") == "X" && event.at("cat") == "step" && event.at("name") == "step 1") {
      step_begin[event.at("pid")] = event.at("ts");
    }
  }
  EXPECT_EQ(count["X"], 2 * 2 * (1 + 5 + 3));
  EXPECT_EQ(count["s"], 6);
  EXPECT_EQ(count["f"], 6);
  // Drawn on one clock, although rank 1's is seven hours ahead.
  EXPECT_NEAR(step_begin.at(0), 107'000, 1);
  EXPECT_NEAR(step_begin.at(1), 107'000, 1);
}

TEST_F(Merge, ATraceThatIsFullHoldsWholeStepsAndSaysSo) {
  write_synthetic(events(), two_ranks(), 4);
  MergeOptions options;
  options.trace = trace();
  options.most_trace_events = 50;
  const Report r = merge_events(events(), options);
  ASSERT_EQ(r.window.notes.size(), 1u);
  EXPECT_THAT(r.window.notes[0], HasSubstr("holds the first 2 of 4 steps of 2 ranks: 44 events"));
}

TEST_F(Merge, ATraceThatIsTooSmallForAStepHasItsFirstRanks) {
  SyntheticStep step = two_ranks();
  for (int r = 2; r < 6; ++r) step.ranks.push_back(step.ranks[0]);
  write_synthetic(events(), step, 2);
  MergeOptions options;
  options.trace = trace();
  options.most_trace_events = 40;
  const Report r = merge_events(events(), options);
  EXPECT_THAT(r.window.notes[0], HasSubstr("holds the first 1 of 2 steps of 3 ranks: 33 events"));
  std::ifstream file(trace());
  int flows = 0;
  const auto trace = nlohmann::json::parse(file);
  for (const auto& event : trace.at("traceEvents")) {
    EXPECT_LT(event.at("pid").get<int>(), 3);
    flows += event.at("ph") == "f";
  }
  EXPECT_EQ(flows, 3);
}

TEST_F(Merge, WhatARankRecordedBeforeItDiedIsReported) {
  write_synthetic(events(), two_ranks(), 5);
  cut(1, 150);
  const Report r = merge_events(events(), {});
  EXPECT_FALSE(r.window.complete);
  EXPECT_GE(r.window.steps, 3);
  EXPECT_LT(r.window.steps, 5);
  EXPECT_DOUBLE_EQ(r.step.seconds, 0.107);
  ASSERT_FALSE(r.window.notes.empty());
  EXPECT_THAT(r.window.notes[0], HasSubstr("rank_000001.events: byte "));
  EXPECT_FALSE(r.ranks[1].memory.has_value());
  EXPECT_THAT(report_text(r), HasSubstr("incomplete: "));
}

TEST_F(Merge, AChangedByteEndsARanksRecords) {
  write_synthetic(events(), two_ranks(), 5);
  flip(0, 100);
  const Report r = merge_events(events(), {});
  EXPECT_FALSE(r.window.complete);
  EXPECT_THAT(r.window.notes[0], HasSubstr("another checksum"));
}

TEST_F(Merge, MissingRanksAreNamedAndTheOthersReported) {
  SyntheticStep step = two_ranks();
  for (int r = 2; r < 6; ++r) step.ranks.push_back(step.ranks[0]);
  write_synthetic(events(), step, 2);
  for (const int rank : {1, 3, 4, 5}) fs::remove(file(rank));
  const Report r = merge_events(events(), {});
  EXPECT_THAT(r.window.missing_ranks, ElementsAre(1, 3, 4, 5));
  EXPECT_THAT(r.window.notes[0], HasSubstr("no records of ranks 1, 3 to 5"));
  EXPECT_FALSE(r.window.complete);
  EXPECT_EQ(r.ranks.size(), 2u);
  EXPECT_DOUBLE_EQ(r.ranks[1].compute_ms, 64);
}

TEST_F(Merge, FilesThatAreNoneOfARunAreRefused) {
  EXPECT_THROW(merge_events(events(), {}), InputError);
  write_synthetic(events(), two_ranks(), 1);
  std::ofstream(file(0)) << "something else";
  const Report r = merge_events(events(), {});
  EXPECT_THAT(r.window.notes[0], HasSubstr("no file of recorded events"));
  fs::remove(file(1));
  EXPECT_THROW(merge_events(events(), {}), InputError);
}

TEST_F(Merge, ANewerVersionOfEventsSaysWhichItIs) {
  write_synthetic(events(), two_ranks(), 1);
  fs::remove(file(1));
  std::fstream file(this->file(0), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(7);
  file.put('3');
  file.close();
  try {
    merge_events(events(), {});
    FAIL() << "expected InputError";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("events of version 3, this program reads version 2"));
  }
}

TEST_F(Merge, AFolderThatCannotBeWrittenIsAnOutputError) {
  write_synthetic(events(), two_ranks(), 1);
  EXPECT_THROW(merge_events(events(), {"/nowhere/trace.json"}), OutputError);
}

TEST_F(Merge, StepsThatWereNotRecordedAreForTheOverhead) {
  const SyntheticStep plan = two_ranks();
  std::vector<EventWriter> files;
  for (int r = 0; r < 2; ++r) files.emplace_back(file(r), testing::synthetic_header(r, 2, 2));
  std::vector<NameTable> names(2);
  int64_t now = 0, sequence = 0;
  for (int64_t step = 0; step < 4; ++step) {
    std::vector<RecordedStep> ranks;
    now = make_step(plan, step, now, sequence, ranks, names);
    for (int r = 0; r < 2; ++r) {
      for (uint32_t n = 0; n < names[r].size(); ++n) files[r].names().number_of(names[r][n]);
      if (step % 2 == 0) {
        RecordedStep other;
        other.step = step;
        other.recorded = false;
        other.wall_ns = 100 * kMs;
        files[r].append(other);
      } else {
        ranks[r].recording_ns = kMs;
        files[r].append(ranks[r]);
      }
    }
  }
  for (EventWriter& file : files) file.end({});
  const Report r = merge_events(events(), {});
  EXPECT_EQ(r.window.steps, 2);
  EXPECT_TRUE(r.window.complete);
  ASSERT_TRUE(r.overhead.has_value());
  EXPECT_NEAR(r.overhead->share, 0.07, 1e-12);
  EXPECT_DOUBLE_EQ(r.overhead->recorded_seconds, 0.107);
  EXPECT_DOUBLE_EQ(r.overhead->unrecorded_seconds, 0.1);
  EXPECT_DOUBLE_EQ(r.overhead->records, 8);
  EXPECT_DOUBLE_EQ(r.overhead->recording_ms, 1);
}

TEST_F(Merge, AWindowThatNeverBeganSaysSo) {
  EventWriter(file(0), testing::synthetic_header(0, 1, 2)).end({});
  const Report r = merge_events(events(), {});
  EXPECT_EQ(r.window.steps, 0);
  EXPECT_THAT(report_text(r), HasSubstr("No step was recorded"));
}

}  // namespace
}  // namespace sprocket::profile

// parallel.remote_kv: AUTO: who decides, by what, and that the decision reaches the strategies.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>

#include "configs/load.h"
#include "runtime/jobs/remote_kv_agreement.h"
#include "runtime/plan/memory_estimate.h"
#include "runtime/plan/remote_kv.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/thread_ranks.h"
#include "tests/runtime/tiny_job.h"

namespace sprocket::runtime {
namespace {

using config::Parallel;
using sprocket::testing::TemporaryFolder;
using ::testing::HasSubstr;

const config::LatentShape kShape{16, 8, 32, 32};  // 8 x 16 x 16 tokens

config::Job load(const std::string& text, int world) {
  return config::parse_job("model { dim: 256 heads: 4 layers: 6 } " + text, "job.txtpb", {},
                           {.world = world})
      .job;
}

TEST(RemoteKv, IsKeptAsLongAsTheEstimateFits) {
  const config::Job job = load("", 2);
  const RemoteKvRoom room = training_room(job, kShape, 0, 0);
  // Six layers' K and V of the other half of the tokens against one layer's.
  EXPECT_EQ(room.kept - room.fetched, 5 * 2 * (8 * 16 * 16 / 2) * 256 * 4);
  for (const auto& [at_hand, value] :
       {std::pair(room.kept, Parallel::KEEP), std::pair(room.kept - 1, Parallel::FETCH_AGAIN),
        std::pair(room.fetched - 1, Parallel::FETCH_AGAIN)}) {
    const RemoteKvRoom planted[] = {training_room(job, kShape, 0, at_hand)};
    const RemoteKvChoice choice = choose_remote_kv(planted);
    EXPECT_EQ(choice.value, value) << at_hand;
    EXPECT_TRUE(choice.by_memory);
  }
}

TEST(RemoteKv, IsKeptWhereFetchingAgainSavesNothing) {
  // The block that is recomputed holds them until its backward anyway.
  const config::Job job = load("training { activation_checkpointing: BLOCK }", 2);
  const RemoteKvRoom none[] = {training_room(job, kShape, 0, 0)};
  EXPECT_EQ(choose_remote_kv(none).value, Parallel::KEEP);
}

TEST(RemoteKv, ABudgetLeavesMoreRoom) {
  const auto remote = [](const std::string& text) {
    return rank_share(load("attention { method: VSA domains: 4 " + text + " }", 4), kShape, 1)
        .remote_rows;
  };
  const int64_t all = 8 * 16 * 16 * 3 / 4;
  EXPECT_EQ(remote(""), all);
  EXPECT_EQ(remote("max_coverage { start: 0.25 }"), all / 4);
  // A schedule counts where it allows most, and what needs nearly everything is gathered whole.
  EXPECT_EQ(remote("max_coverage { start: 1 end: 0.25 increment: -0.25 interval: 10 }"), all);
  EXPECT_EQ(remote("max_coverage { start: 0.25 end: 0.5 increment: 0.05 interval: 10 }"), all / 2);
  EXPECT_EQ(remote("max_coverage { start: 0.97 }"), all);
}

// PSA's K and V are those of the tokens and of their means over 2, 4 and 8.
TEST(RemoteKv, APyramidNeedsMoreRoom) {
  for (const char* strategy : {"SELECTED", "ALL_GATHER"}) {
    const auto rows = [&](const std::string& method) {
      return rank_share(load("attention { method: " + method +
                                 " order: KD } parallel { strategy: " + strategy + " }",
                             4),
                        kShape, 1)
          .remote_rows;
    };
    const int64_t all = 8 * 16 * 16 * 3 / 4;
    EXPECT_EQ(rows("DENSE"), all);
    EXPECT_EQ(rows("PSA"), all + all / 2 + all / 4 + all / 8);
  }
}

TEST(RemoteKv, OneRankWithoutRoomLetsAllFetchAgain) {
  const data::LatentShape shape{16, 8, 32, 32};
  const RemoteKvRoom room = training_room(load("", 2), kShape, 0, 0);
  for (const int poor : {-1, 0, 1}) {
    std::mutex mutex;
    std::vector<RemoteKvChoice> choices;
    sprocket::testing::run_ranks(2, [&](std::unique_ptr<comm::Communicator> world) {
      config::Job job = load("", 2);
      const int64_t at_hand = room.kept - (world->rank() == poor ? 1 : 0);
      const RemoteKvChoice choice = agree_on_remote_kv(job, shape, {1, at_hand}, *world);
      EXPECT_EQ(job.parallel().remote_kv(), choice.value);
      const std::lock_guard lock(mutex);
      choices.push_back(choice);
    });
    ASSERT_EQ(choices.size(), 2u);
    for (const RemoteKvChoice& choice : choices) {
      EXPECT_EQ(choice.value, poor < 0 ? Parallel::KEEP : Parallel::FETCH_AGAIN);
      EXPECT_EQ(choice.rank, std::max(poor, 0));
      EXPECT_THAT(choice.text(), HasSubstr(poor < 0 ? "are kept" : "are fetched again: rank"));
    }
  }
}

// Every thread of the kernel has a workspace: two need more than one, wherever the number comes
// from.
TEST(RemoteKv, ThreadsNeedRoom) {
  const data::LatentShape shape{16, 8, 32, 32};
  const RemoteKvRoom room = training_room(load("compute { threads: 1 }", 2), kShape, 0, 0);
  for (const int threads : {1, 2}) {
    sprocket::testing::run_ranks(2, [&](std::unique_ptr<comm::Communicator> world) {
      config::Job job = load("", 2);
      agree_on_remote_kv(job, shape, {threads, room.kept}, *world);
      EXPECT_EQ(job.parallel().remote_kv(), threads == 1 ? Parallel::KEEP : Parallel::FETCH_AGAIN);
      EXPECT_EQ(job.compute().threads(), 0);
    });
  }
}

TEST(RemoteKv, WhatTheJobSaysIsNotOverruled) {
  const data::LatentShape shape{16, 8, 32, 32};
  for (const auto& [text, value] :
       {std::pair("parallel { remote_kv: KEEP }", Parallel::KEEP),
        std::pair("parallel { remote_kv: FETCH_AGAIN }", Parallel::FETCH_AGAIN),
        std::pair("parallel { strategy: RING }", Parallel::KEEP),
        std::pair("parallel { ulysses: 2 }", Parallel::KEEP)}) {
    // One rank of two alone: nothing may be asked of the other.
    sprocket::testing::run_ranks(1, [&](std::unique_ptr<comm::Communicator> world) {
      config::Job job = load(text, 2);
      const RemoteKvChoice choice = agree_on_remote_kv(job, shape, {1, 1}, *world);
      EXPECT_EQ(job.parallel().remote_kv(), value) << text;
      EXPECT_FALSE(choice.by_memory);
    });
  }
}

nlohmann::json profile_of(const config::Job& job) {
  std::ifstream stream(std::filesystem::path(job.output().directory()) / "profile.json");
  return nlohmann::json::parse(stream);
}

double outer_bytes(const nlohmann::json& profile, const std::string& phase) {
  double bytes = 0;
  for (const auto& row : profile.at("operations")) {
    if (row.at("group") == "sp.outer" && row.at("phase") == phase) {
      bytes += row.at("payload_bytes").get<double>();
    }
  }
  return bytes;
}

TEST(RemoteKv, ARunWithoutRoomFetchesAgainAndSaysSo) {
  TemporaryFolder rich, poor;
  const std::vector<std::string> dense = {"parallel.strategy: ALL_GATHER", "training.steps: 4"};
  const config::Job kept = sprocket::testing::tiny_job(rich.path().string(), 2, dense),
                    again = sprocket::testing::tiny_job(poor.path().string(), 2, dense);
  TrainOptions options;
  const TrainResult a = sprocket::testing::train(kept, options);
  options.memory = 1;
  const TrainResult b = sprocket::testing::train(again, options);
  EXPECT_EQ(a.losses, b.losses);
  const auto x = profile_of(kept), y = profile_of(again);
  EXPECT_EQ(x.at("remote_kv").at("value"), "KEEP");
  EXPECT_EQ(y.at("remote_kv").at("value"), "FETCH_AGAIN");
  EXPECT_EQ(y.at("remote_kv").at("at_hand_bytes"), 1);
  // Gradients alone against gradients and what the forward fetched.
  EXPECT_EQ(outer_bytes(x, "backward") + outer_bytes(x, "forward"), outer_bytes(y, "backward"));
}

}  // namespace
}  // namespace sprocket::runtime

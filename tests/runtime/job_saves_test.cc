// Saves of whole jobs: what is resumed from them, what becomes of a job when one fails, what they
// cost.
#include "runtime/jobs/job_saves.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "runtime/checkpoint/manifest.h"
#include "runtime/jobs/rank_agreement.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/small_checkpoints.h"
#include "tests/runtime/thread_ranks.h"
#include "tests/runtime/tiny_job.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;
using sprocket::testing::message_of;
using sprocket::testing::names_in;
using sprocket::testing::read_bytes;
using sprocket::testing::run_ranks;
using sprocket::testing::SmallTensors;
using sprocket::testing::state_at;
using sprocket::testing::TemporaryFolder;
using sprocket::testing::tiny_job;
using sprocket::testing::train;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<nlohmann::json> lines_of(const std::string& path) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(read_bytes(path));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

// Where no folder can be renamed to.
void occupy(const std::string& run, int64_t step) {
  fs::create_directories(run);
  fs::create_symlink("nowhere", fs::path(run) / checkpoint_name(step));
}

class ResumedFromTheMiddle : public ::testing::TestWithParam<int> {};

// Training went on while these files were written.
TEST_P(ResumedFromTheMiddle, IsTheUninterruptedRun) {
  TemporaryFolder folder;
  const std::string root = folder.path().string();
  const config::Job job = tiny_job(
      root, GetParam(),
      {"training.steps: 9", "output.checkpoint_interval: 2", "output.keep_checkpoints: 0"});
  const TrainResult whole = train(job);
  for (const int64_t step : {2, 6}) {
    const std::string part = root + "/part_" + std::to_string(step);
    fs::create_directories(part);
    fs::copy(root + "/run/" + checkpoint_name(step), part + "/" + checkpoint_name(step),
             fs::copy_options::recursive);
    config::Job rest = job;
    rest.mutable_output()->set_directory(part);
    TrainOptions options;
    options.resume = "latest";
    const TrainResult resumed = train(rest, options);
    EXPECT_EQ(resumed.first_step, step);
    for (const char* kind : {"/model", "/optim"}) {
      for (const std::string& name : names_in(whole.checkpoint + kind)) {
        const std::string file = std::string(kind) + "/" + name;
        EXPECT_TRUE(read_bytes(resumed.checkpoint + file) == read_bytes(whole.checkpoint + file))
            << file << " from step " << step;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Worlds, ResumedFromTheMiddle, ::testing::Values(1, 2, 4));

TEST(JobSaves, TheJobGoesOnWithoutASaveThatFailed) {
  TemporaryFolder folder;
  const std::string root = folder.path().string();
  const config::Job job = tiny_job(root, 2, {"training.steps: 9", "output.checkpoint_interval: 4"});
  occupy(root + "/run", 4);
  const TrainResult result = train(job);
  EXPECT_EQ(result.last_step, 9);
  EXPECT_EQ(fs::path(result.checkpoint).filename(), "step_00000009");
  EXPECT_FALSE(find_damage(root + "/run/step_00000008", VerifyDepth::kContents));
  const auto lines = lines_of(root + "/run/metrics.jsonl");
  EXPECT_EQ(lines.at(3).at("failed_saves"), 0);
  EXPECT_EQ(lines.at(8).at("failed_saves"), 1);
}

TEST(JobSaves, TheJobEndsWithTheSaveThatFailedWhereItIsToldTo) {
  TemporaryFolder folder;
  const std::string root = folder.path().string();
  const config::Job job = tiny_job(root, 2,
                                   {"training.steps: 20",
                                    "output { checkpoint_interval: 4 "
                                    "failed_save: STOP }"});
  occupy(root + "/run", 8);
  EXPECT_THAT(message_of<OutputError>([&] { train(job); }), HasSubstr("cannot be renamed to"));
  EXPECT_EQ(find_newest_checkpoint(root + "/run")->step, 4);
  // The next save finds the end of that one at the latest.
  EXPECT_LE(lines_of(root + "/run/metrics.jsonl").size(), 12u);
}

TEST(JobSaves, HaveTheSameBytesInTheBackgroundAndWaitedFor) {
  TemporaryFolder waited, background;
  const auto saved = [](const TemporaryFolder& folder, const std::string& asynchronous) {
    train(tiny_job(folder.path().string(), 2,
                   {"training { steps: 7 ema_decay: 0.9 }",
                    "output { checkpoint_interval: 2 keep_checkpoints: 1 keep_every: 4 "
                    "asynchronous_saves: " +
                        asynchronous + " }"}));
    return folder.path().string() + "/run/";
  };
  const std::string one = saved(waited, "false"), other = saved(background, "true");
  for (const char* step : {"step_00000004", "step_00000007"}) {
    for (const char* part : {"/model", "/optim", "/ema"}) {
      const std::string where = step + std::string(part);
      for (const std::string& name : names_in(one + where)) {
        const std::string file = where + "/" + name;
        EXPECT_TRUE(read_bytes(one + file) == read_bytes(other + file)) << file;
      }
    }
  }
  EXPECT_EQ(list_checkpoints(one).size(), 2u);
  EXPECT_EQ(list_checkpoints(other).size(), 2u);
}

TEST(JobSaves, TheLastSaveHasToSucceed) {
  TemporaryFolder folder;
  const std::string root = folder.path().string();
  const config::Job job = tiny_job(root, 2, {"training.steps: 5", "output.checkpoint_interval: 4"});
  occupy(root + "/run", 5);
  EXPECT_THAT(message_of<OutputError>([&] { train(job); }), HasSubstr("cannot be renamed to"));
  EXPECT_EQ(find_newest_checkpoint(root + "/run")->step, 4);
}

TEST(JobSaves, MetricsTellWhatSavesCost) {
  TemporaryFolder folder;
  const std::string root = folder.path().string();
  train(tiny_job(root, 2, {"training.steps: 4", "output.checkpoint_interval: 2"}));
  const auto lines = lines_of(root + "/run/metrics.jsonl");
  EXPECT_EQ(lines.at(0).at("checkpoint_stall_seconds"), 0);
  EXPECT_EQ(lines.at(1).at("checkpoint_stall_seconds"), 0);
  EXPECT_GT(lines.at(2).at("checkpoint_stall_seconds").get<double>(), 0);
}

// Policies, without a job around them.
class SavesOfAPolicy : public ::testing::TestWithParam<bool> {
 protected:
  std::string run() const { return (folder_.path() / "run").string(); }
  void save(JobSaves& saves, int64_t step) const {
    const SmallTensors tensors(static_cast<float>(step));
    saves.begin(state_at(step), [&] { return tensors.view(); });
  }

 private:
  const TemporaryFolder folder_;
};

TEST_P(SavesOfAPolicy, StopWhenOneFailed) {
  occupy(run(), 2);
  run_ranks(2, [&](std::unique_ptr<comm::Communicator> world) {
    JobSaves saves(*world, run(), {GetParam(), true, {}}, [] {});
    save(saves, 1);
    save(saves, 2);
    EXPECT_EQ(fs::path(saves.newest()).filename(), checkpoint_name(1));
    EXPECT_THAT(message_of<OutputError>([&] { save(saves, 3); }), HasSubstr("cannot be renamed"));
    saves.finish();  // of nothing
  });
  EXPECT_THAT(names_in(run()), ElementsAre("step_00000001", "step_00000002"));
}

TEST_P(SavesOfAPolicy, GoOnWhenOneFailed) {
  occupy(run(), 2);
  run_ranks(2, [&](std::unique_ptr<comm::Communicator> world) {
    JobSaves saves(*world, run(), {GetParam(), false, {}}, [] {});
    save(saves, 1);
    save(saves, 2);
    save(saves, 3);
    EXPECT_EQ(saves.failed(), 1);
    saves.finish();
    EXPECT_EQ(fs::path(saves.newest()).filename(), checkpoint_name(3));
    EXPECT_GT(saves.take_stall_seconds(), 0);
    EXPECT_EQ(saves.take_stall_seconds(), 0);
  });
}

// All ranks leave with an error: the save under way is completed first, and the error is theirs.
TEST_P(SavesOfAPolicy, AreFinishedBeforeAnErrorOfAllRanksEndsTheJob) {
  fs::create_directories(run());
  run_ranks(2, [&](std::unique_ptr<comm::Communicator> world) {
    JobSaves saves(*world, run(), {GetParam(), true, {}}, [] {});
    const auto job = [&] {
      save(saves, 1);
      throw_agreed_non_finite("the loss is nan");
    };
    EXPECT_THAT(message_of<NonFiniteError>([&] { saves.guard(job); }), HasSubstr("nan"));
  });
  EXPECT_FALSE(find_damage(run() + "/step_00000001", VerifyDepth::kContents));
}

INSTANTIATE_TEST_SUITE_P(Kinds, SavesOfAPolicy, ::testing::Bool(), [](const auto& info) {
  return info.param ? "asynchronous" : "synchronous";
});

}  // namespace
}  // namespace sprocket::runtime

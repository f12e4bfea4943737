// Saves in the background: the same files, at most one at a time, and failures that are reported
// when ranks look.
#include "runtime/checkpoint/checkpoint_saver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <optional>

#include "base/error.h"
#include "runtime/checkpoint/manifest.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/small_checkpoints.h"
#include "tests/runtime/thread_ranks.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;
using sprocket::testing::names_in;
using sprocket::testing::read_bytes;
using sprocket::testing::run_ranks;
using sprocket::testing::save;
using sprocket::testing::SmallTensors;
using sprocket::testing::state_at;
using sprocket::testing::TemporaryFolder;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAreArray;

std::string text_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const OutputError& output) {
    return output.what();
  }
}

// File within the folder -> contents.
std::map<std::string, std::string> contents_of(const std::string& folder) {
  std::map<std::string, std::string> contents;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    contents[fs::relative(entry.path(), folder).string()] = read_bytes(entry.path().string());
  }
  return contents;
}

class BackgroundSave : public ::testing::TestWithParam<int> {};

// What training does to the tensors meanwhile is not in the files.
TEST_P(BackgroundSave, HasTheBytesOfOneThatWasWaitedFor) {
  TemporaryFolder waited, run;
  const std::string expected = save(waited.path().string(), 7, GetParam());
  run_ranks(GetParam(), [&](std::unique_ptr<comm::Communicator> world) {
    CheckpointSaver saver(*world, run.path().string(), {});
    SmallTensors tensors(7);
    saver.begin(state_at(7), tensors.view());
    EXPECT_TRUE(saver.under_way());
    for (const CheckpointPart& part : parts_of(tensors.view())) {
      for (const CheckpointTensor& tensor : part.tensors) std::ranges::fill(tensor.values, -1.0f);
    }
    const SaveOutcome outcome = saver.finish();
    EXPECT_FALSE(saver.under_way());
    EXPECT_FALSE(outcome.error);
    EXPECT_EQ(outcome.step, 7);
    EXPECT_EQ(outcome.path, run.path().string() + "/step_00000007");
  });
  EXPECT_TRUE(contents_of(run.path().string() + "/step_00000007") == contents_of(expected));
  EXPECT_THAT(names_in(run.path().string()), ElementsAre("step_00000007"));
}

// What is not in the manifest is not verified when it is loaded.
TEST_P(BackgroundSave, TheManifestHasTheFilesOfAllRanks) {
  TemporaryFolder run;
  const std::string path = save(run.path().string(), 7, GetParam());
  std::vector<std::string> listed, there;
  for (const ManifestEntry& entry : read_manifest(path)) listed.push_back(entry.file);
  for (const auto& [file, bytes] : contents_of(path)) {
    if (file != kManifestName) there.push_back(file);
  }
  EXPECT_THAT(listed, UnorderedElementsAreArray(there));
}

INSTANTIATE_TEST_SUITE_P(Worlds, BackgroundSave, ::testing::Values(1, 2, 3, 4));

// Ranks that look reach the end together, without anybody who waits.
TEST(CheckpointSaver, LookingEndsTheSaveOnAllRanksAtOnce) {
  TemporaryFolder run;
  std::array<int, 3> looks = {};
  run_ranks(3, [&](std::unique_ptr<comm::Communicator> world) {
    CheckpointSaver saver(*world, run.path().string(), {});
    EXPECT_FALSE(saver.poll());
    const SmallTensors tensors(7);
    saver.begin(state_at(7), tensors.view());
    std::optional<SaveOutcome> outcome;
    for (; !outcome; outcome = saver.poll()) ++looks[world->rank()];
    EXPECT_FALSE(outcome->error);
    EXPECT_FALSE(find_damage(outcome->path, VerifyDepth::kContents));
  });
  EXPECT_EQ(looks[0], looks[1]);
  EXPECT_EQ(looks[0], looks[2]);
}

TEST(CheckpointSaver, KeepsTheLastAndEveryNth) {
  TemporaryFolder run;
  run_ranks(2, [&](std::unique_ptr<comm::Communicator> world) {
    CheckpointSaver saver(*world, run.path().string(), {2, 20});
    for (const int64_t step : {10, 20, 30, 40, 50, 60, 70}) {
      saver.begin(state_at(step), SmallTensors(static_cast<float>(step)).view());
      EXPECT_FALSE(saver.finish().error);
    }
  });
  EXPECT_THAT(names_in(run.path().string()),
              ElementsAre("step_00000020", "step_00000040", "step_00000060", "step_00000070"));
}

// A link of the final name that leads nowhere: the folder cannot be renamed to it, whoever runs
// this.
TEST(CheckpointSaver, ARenameThatFailsLeavesOlderOnesAndCanBeTriedAgain) {
  TemporaryFolder run;
  const std::string older = save(run.path().string(), 1, 2);
  const fs::path taken = run.path() / "step_00000002";
  fs::create_symlink("nowhere", taken);
  run_ranks(2, [&](std::unique_ptr<comm::Communicator> world) {
    CheckpointSaver saver(*world, run.path().string(), {1, 0});
    const SmallTensors tensors(2);
    saver.begin(state_at(2), tensors.view());
    const SaveOutcome failed = saver.finish();
    ASSERT_TRUE(failed.error);
    EXPECT_THAT(text_of(failed.error), HasSubstr("cannot be renamed to " + taken.string()));
    world->barrier();
    EXPECT_THAT(names_in(run.path().string()), ElementsAre("step_00000001", "step_00000002"));
    EXPECT_FALSE(find_damage(older, VerifyDepth::kContents));
    world->barrier();
    if (world->rank() == 0) fs::remove(taken);
    world->barrier();
    saver.begin(state_at(2), tensors.view());
    EXPECT_FALSE(saver.finish().error);
  });
  EXPECT_THAT(names_in(run.path().string()), ElementsAre("step_00000002"));
}

// One rank of four cannot write: it alone has a part whose folder cannot be made.
TEST(CheckpointSaver, AFailureOfOneRankIsEverybodys) {
  TemporaryFolder run;
  const std::string older = save(run.path().string(), 1, 4);
  std::array<std::string, 4> texts;
  run_ranks(4, [&](std::unique_ptr<comm::Communicator> world) {
    CheckpointSaver saver(*world, run.path().string(), {1, 0});
    const SmallTensors tensors(2);
    CheckpointTensors view = tensors.view();
    if (world->rank() == 2) view.others.push_back({"/proc/none", {}});
    saver.begin(state_at(2), view);
    std::optional<SaveOutcome> outcome;
    while (!outcome) outcome = saver.poll();
    texts[world->rank()] = outcome->error ? text_of(outcome->error) : "no error";
  });
  for (const std::string& text : texts)
    EXPECT_THAT(text, HasSubstr("/proc/none: cannot be created"));
  EXPECT_THAT(names_in(run.path().string()), ElementsAre("step_00000001"));
  EXPECT_FALSE(find_damage(older, VerifyDepth::kContents));
}

// A rank that is torn down with a save under way leaves nothing that looks complete.
TEST(CheckpointSaver, ASaveThatNobodyFinishedIsNoCheckpoint) {
  TemporaryFolder run;
  const std::string older = save(run.path().string(), 1, 2);
  run_ranks(2, [&](std::unique_ptr<comm::Communicator> world) {
    CheckpointSaver saver(*world, run.path().string(), {});
    saver.begin(state_at(2), SmallTensors(2).view());
  });
  EXPECT_EQ(names_in(run.path().string()).size(), 2u);
  EXPECT_EQ(find_newest_checkpoint(run.path().string())->path, older);
  remove_unfinished(run.path().string());
  EXPECT_THAT(names_in(run.path().string()), ElementsAre("step_00000001"));
}

}  // namespace
}  // namespace sprocket::runtime

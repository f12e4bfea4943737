// What `sprocket checkpoint list` and `verify` say.
#include "runtime/checkpoint/checkpoint_summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/small_checkpoints.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;
using sprocket::testing::message_of;
using sprocket::testing::read_bytes;
using sprocket::testing::save;
using sprocket::testing::write_bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class CheckpointSummaries : public ::testing::Test {
 protected:
  std::string run() const { return folder_.path().string(); }

 private:
  const sprocket::testing::TemporaryFolder folder_;
};

TEST_F(CheckpointSummaries, AreOfAllCheckpointsOldestFirst) {
  save(run(), 20, 1);
  save(run(), 5, 2);
  fs::create_directories(run() + "/step_00000030.tmp-1-2/model");
  const auto summaries = summarise_checkpoints(run(), VerifyDepth::kContents);
  ASSERT_EQ(summaries.size(), 2u);
  EXPECT_EQ(summaries[0].checkpoint.step, 5);
  EXPECT_EQ(summaries[1].checkpoint.step, 20);
  // Weights of two ranks and their index, moments, state, manifest; of one rank a file less each.
  EXPECT_EQ(summaries[0].files, 6);
  EXPECT_EQ(summaries[1].files, 4);
  for (const CheckpointSummary& summary : summaries) {
    EXPECT_THAT(summary.holds, ElementsAre("weights", "moments"));
    EXPECT_THAT(summary.damage, IsEmpty());
    EXPECT_GT(summary.bytes, 3 * 50 * sizeof(float));
  }
}

TEST_F(CheckpointSummaries, NameEveryDamagedFile) {
  const std::string path = save(run(), 5, 2);
  fs::resize_file(path + "/model/model-00001-of-00002.safetensors", 0);
  fs::remove(path + "/model/model-00002-of-00002.safetensors");
  std::string bytes = read_bytes(path + "/optim/optim.safetensors");
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_bytes(path + "/optim/optim.safetensors", bytes);
  EXPECT_THAT(summarise_checkpoints(path, VerifyDepth::kContents).at(0).damage,
              ElementsAre(HasSubstr("model-00001-of-00002.safetensors: 0 bytes, the manifest says"),
                          HasSubstr("model-00002-of-00002.safetensors: No such file"),
                          HasSubstr("optim.safetensors: contents hash to")));
  // Sizes do not tell the flipped bit.
  EXPECT_EQ(summarise_checkpoints(path, VerifyDepth::kSizes).at(0).damage.size(), 2u);
}

TEST_F(CheckpointSummaries, AStateOfTheFutureIsDamage) {
  const std::string path = save(run(), 5, 1);
  const std::string state = "schema: 9";
  write_bytes(path + "/state.txtpb", state);
  std::vector<ManifestEntry> entries = read_manifest(path);
  for (ManifestEntry& entry : entries) {
    if (entry.file == "state.txtpb") entry = describe_file(path, entry.file);
  }
  write_bytes(path + "/MANIFEST", manifest_text(entries));
  EXPECT_THAT(summarise_checkpoints(path, VerifyDepth::kContents).at(0).damage,
              ElementsAre(HasSubstr("schema 9, this program reads 1")));
}

TEST_F(CheckpointSummaries, WhereThereIsNone) {
  EXPECT_THAT(message_of<InputError>([&] { summarise_checkpoints(run(), VerifyDepth::kSizes); }),
              HasSubstr("no checkpoint found in it; expected a run's folder with some"));
  EXPECT_THAT(
      message_of<InputError>([&] { summarise_checkpoints(run() + "/x", VerifyDepth::kSizes); }),
      HasSubstr("no such checkpoint; expected a folder step_00001000 or a run's folder"));
}

}  // namespace
}  // namespace sprocket::runtime

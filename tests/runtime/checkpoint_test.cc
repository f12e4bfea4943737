// Checkpoints under damage, failing disks and other numbers of ranks.
#include "runtime/checkpoint/checkpoint_tensors.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "models/safetensors/tensor_set.h"
#include "runtime/checkpoint/manifest.h"
#include "runtime/checkpoint/run_checkpoints.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/small_checkpoints.h"
#include "tests/runtime/thread_ranks.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;
using sprocket::testing::message_of;
using sprocket::testing::names_in;
using sprocket::testing::read_bytes;
using sprocket::testing::run_ranks;
using sprocket::testing::save;
using sprocket::testing::save_now;
using sprocket::testing::SmallTensors;
using sprocket::testing::TemporaryFolder;
using sprocket::testing::write_bytes;

class SavedByRanks : public ::testing::TestWithParam<int> {};

TEST_P(SavedByRanks, IsReadByOne) {
  TemporaryFolder run;
  const std::string path = save(run.path().string(), 12, GetParam());
  EXPECT_EQ(fs::path(path).filename(), "step_00000012");
  SmallTensors read(-1);
  load_tensors(path, read.view());
  EXPECT_TRUE(read == SmallTensors(12));
  EXPECT_EQ(read_state(path).step(), 12);
  EXPECT_FALSE(find_damage(path, VerifyDepth::kContents));
}

INSTANTIATE_TEST_SUITE_P(Worlds, SavedByRanks, ::testing::Values(1, 2, 3, 8));

TEST(Checkpoint, RanksShareTheWriting) {
  TemporaryFolder run;
  const std::string path = save(run.path().string(), 1, 2);
  EXPECT_EQ(names_in(path + "/model"), (std::vector<std::string>{"model-00001-of-00002.safetensors",
                                                                 "model-00002-of-00002.safetensors",
                                                                 "model.safetensors.index.json"}));
  const auto first = safetensors::File::open(path + "/model/model-00001-of-00002.safetensors");
  EXPECT_NE(first.find("a.weight"), nullptr);
  EXPECT_EQ(first.find("d.weight"), nullptr);
}

TEST(Checkpoint, SavingAStepAgainReplacesIt) {
  TemporaryFolder run;
  const std::string path = save(run.path().string(), 5, 1);
  write_bytes(path + "/MANIFEST", "damaged");
  EXPECT_EQ(save(run.path().string(), 5, 2), path);
  EXPECT_FALSE(find_damage(path, VerifyDepth::kContents));
  EXPECT_EQ(names_in(run.path().string()), std::vector<std::string>{"step_00000005"});
}

struct Damage {
  std::string name;
  std::string expected;  // part of the message
  std::function<void(const std::string& checkpoint)> apply;
};

void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.name; }

const char kModelFile[] = "/model/model-00001-of-00002.safetensors";

void flip_bit(const std::string& path, size_t byte) {
  std::string bytes = read_bytes(path);
  bytes[byte] = static_cast<char>(bytes[byte] ^ 4);
  write_bytes(path, bytes);
}

class DamagedCheckpoint : public ::testing::TestWithParam<Damage> {};

TEST_P(DamagedCheckpoint, IsNamedAndPassedOver) {
  TemporaryFolder run;
  const std::string older = save(run.path().string(), 10);
  const std::string newest = save(run.path().string(), 20);
  GetParam().apply(newest);
  const auto damage = find_damage(newest, VerifyDepth::kContents);
  ASSERT_TRUE(damage);
  EXPECT_NE(damage->find(GetParam().expected), std::string::npos) << *damage;
  const auto found = find_newest_checkpoint(run.path().string());
  ASSERT_TRUE(found);
  EXPECT_EQ(found->path, older);
  const std::string message = message_of<InputError>([&] { open_checkpoint(newest); });
  EXPECT_NE(message.find(GetParam().expected), std::string::npos) << message;
  EXPECT_EQ(open_checkpoint(run.path().string()).step, 10);
  EXPECT_EQ(open_checkpoint(older + "/").step, 10);
}

INSTANTIATE_TEST_SUITE_P(
    Matrix, DamagedCheckpoint,
    ::testing::Values(
        Damage{"truncated_shard", "bytes, the manifest says",
               [](const std::string& c) {
                 fs::resize_file(c + kModelFile, fs::file_size(c + kModelFile) - 1);
               }},
        Damage{"zero_bytes", "0 bytes, the manifest says",
               [](const std::string& c) { fs::resize_file(c + kModelFile, 0); }},
        Damage{"flipped_bit", "contents hash to",
               [](const std::string& c) { flip_bit(c + kModelFile, 500); }},
        Damage{"flipped_state", "state.txtpb: contents hash to",
               [](const std::string& c) { flip_bit(c + "/state.txtpb", 3); }},
        Damage{"missing_shard", "No such file",
               [](const std::string& c) { fs::remove(c + kModelFile); }},
        Damage{"missing_manifest", "MANIFEST: No such file",
               [](const std::string& c) { fs::remove(c + "/MANIFEST"); }},
        Damage{"empty_manifest", "expected 'sprocket manifest 1'",
               [](const std::string& c) { fs::resize_file(c + "/MANIFEST", 0); }},
        Damage{"truncated_manifest", "ends before its closing line",
               [](const std::string& c) {
                 const std::string text = read_bytes(c + "/MANIFEST");
                 write_bytes(c + "/MANIFEST", text.substr(0, text.rfind("end ")));
               }},
        Damage{"flipped_manifest", "MANIFEST",
               [](const std::string& c) { flip_bit(c + "/MANIFEST", 25); }},
        Damage{"manifest_outside", "expected '<bytes> <16 hex digits> <file>'",
               [](const std::string& c) {
                 write_bytes(c + "/MANIFEST", manifest_text({{"../../etc/passwd", 1, 2}}));
               }}),
    [](const auto& info) { return info.param.name; });

TEST(Checkpoint, ManifestsAreReadBackAndKeepTheirFiles) {
  const std::vector<ManifestEntry> entries = {{"model/a b.safetensors", 123, 0xfeed},
                                              {"state.txtpb", 0, ~uint64_t{0}}};
  EXPECT_EQ(parse_manifest(manifest_text(entries), "m"), entries);
}

TEST(Checkpoint, NewerStatesAndMissingOnesAreRefused) {
  TemporaryFolder run;
  const std::string path = save(run.path().string(), 3, 1);
  EXPECT_NE(message_of<InputError>([] {
              parse_state(
                  "schema: 1 a " +
                      [] {
                        std::string deep;
                        for (int level = 0; level < 1'000'000; ++level) deep += "{a";
                        return deep;
                      }(),
                  "state.txtpb");
            }).find("too deep"),
            std::string::npos);
  write_bytes(path + "/state.txtpb", "schema: 9 a_field_of_the_future: 1");
  EXPECT_NE(
      message_of<InputError>([&] { read_state(path); }).find("schema 9, this program reads 1"),
      std::string::npos);
  EXPECT_NE(message_of<InputError>([&] {
              open_checkpoint(run.path().string() + "/none");
            }).find("no such"),
            std::string::npos);
  TemporaryFolder empty;
  EXPECT_NE(
      message_of<InputError>([&] { open_checkpoint(empty.path().string()); }).find("none at all"),
      std::string::npos);
}

TEST(Checkpoint, TensorsOfOtherShapesAreNamed) {
  TemporaryFolder run;
  const std::string path = save(run.path().string(), 3, 1);
  SmallTensors wider(0, 60);
  EXPECT_NE(message_of<InputError>([&] {
              load_tensors(path, wider.view());
            }).find("a.weight has the shape [7, 50], expected [7, 60]"),
            std::string::npos);
}

TEST(Checkpoint, PruningCountsCompleteOnesOnly) {
  TemporaryFolder run;
  for (const int64_t step : {1, 2, 3}) save(run.path().string(), step, 1);
  fs::resize_file(run.path().string() + "/step_00000003/state.txtpb", 1);
  save(run.path().string(), 4, 1, 2);
  EXPECT_EQ(names_in(run.path().string()),
            (std::vector<std::string>{"step_00000002", "step_00000003", "step_00000004"}));
}

TEST(Checkpoint, LeftoversOfUnfinishedSavesAreRemoved) {
  TemporaryFolder run;
  save(run.path().string(), 1, 1);
  fs::create_directories(run.path().string() + "/step_00000002.tmp-77-ab/model");
  fs::create_directories(run.path().string() + "/notes.tmp-x");
  EXPECT_EQ(list_checkpoints(run.path().string()).size(), 1u);
  remove_unfinished(run.path().string());
  EXPECT_EQ(names_in(run.path().string()),
            (std::vector<std::string>{"notes.tmp-x", "step_00000001"}));
}

// The failure of one rank is everybody's, and what was there stays. The largest file a process may
// write stands for a disk that is full; it holds for this whole process, so the sizes are chosen so
// that only the large save runs into it.
TEST(Checkpoint, ADiskThatIsFullLeavesTheOlderOne) {
  TemporaryFolder run;
  const std::string older = save(run.path().string(), 1, 2);
  struct rlimit former {};
  getrlimit(RLIMIT_FSIZE, &former);
  const auto former_handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small { 64 << 10, former.rlim_max };
  setrlimit(RLIMIT_FSIZE, &small);
  std::vector<std::string> messages(2);
  run_ranks(2, [&](std::unique_ptr<comm::Communicator> world) {
    const SmallTensors large(2, 4000);
    messages[world->rank()] = message_of<OutputError>([&] {
      save_now(*world, run.path().string(), 2, large, {1, 0});
    });
  });
  setrlimit(RLIMIT_FSIZE, &former);
  std::signal(SIGXFSZ, former_handler);
  EXPECT_NE(messages[0].find("File too large"), std::string::npos) << messages[0];
  EXPECT_EQ(messages[0], messages[1]);
  EXPECT_EQ(names_in(run.path().string()), std::vector<std::string>{"step_00000001"});
  EXPECT_FALSE(find_damage(older, VerifyDepth::kContents));
}

// Mounts need privileges; without them the two tests below have nothing to stand on.
class OnASmallDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    mounted_ = ::mount("tmpfs", folder_.path().string().c_str(), "tmpfs", 0, "size=256k") == 0;
    if (!mounted_) GTEST_SKIP() << "mounting a tmpfs needs privileges";
  }
  void TearDown() override {
    if (mounted_) ::umount(folder_.path().string().c_str());
  }
  std::string save_large() {
    std::string message;
    run_ranks(2, [&](std::unique_ptr<comm::Communicator> world) {
      const SmallTensors large(2, 20000);
      const auto own = message_of<OutputError>([&] {
        save_now(*world, folder_.path().string(), 2, large, {1, 0});
      });
      if (world->rank() == 0) message = own;
    });
    return message;
  }
  TemporaryFolder folder_;
  bool mounted_ = false;
};

TEST_F(OnASmallDisk, NoSpaceLeavesTheOlderCheckpoint) {
  const std::string older = save(folder_.path().string(), 1, 2);
  const std::string message = save_large();
  EXPECT_NE(message.find("No space left on device"), std::string::npos) << message;
  EXPECT_EQ(names_in(folder_.path().string()), std::vector<std::string>{"step_00000001"});
  EXPECT_FALSE(find_damage(older, VerifyDepth::kContents));
}

TEST_F(OnASmallDisk, ReadOnlyFoldersAreNamed) {
  const std::string older = save(folder_.path().string(), 1, 2);
  ASSERT_EQ(::mount("", folder_.path().string().c_str(), "", MS_REMOUNT | MS_RDONLY, ""), 0);
  const std::string message = save_large();
  EXPECT_NE(message.find("Read-only file system"), std::string::npos) << message;
  EXPECT_FALSE(find_damage(older, VerifyDepth::kContents));
}

}  // namespace
}  // namespace sprocket::runtime

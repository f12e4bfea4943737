#include "launcher/post_mortem.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "tests/launcher/launch/watched_job.h"

namespace sprocket::launcher {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// Of a rank that has waited in exchange #`sequence` for `age_ms`, or has completed it.
control::LastWords words(int rank, int64_t sequence, bool unfinished, int64_t age_ms = 3000) {
  control::LastWords words;
  *words.mutable_hello() = joined(rank).message.hello();
  words.set_error("timed out");
  *words.mutable_heartbeat() = beat(rank, 9, sequence, unfinished).message.heartbeat();
  words.mutable_heartbeat()->mutable_operation(0)->set_age_ms(age_ms);
  *words.mutable_dump()->add_operation() = words.heartbeat().operation(0);
  return words;
}

TEST(PostMortem, NamesThoseThatLeftNoWord) {
  EXPECT_EQ(post_mortem_sentence({words(0, 41, true), {}, words(2, 41, true)}),
            "rank 1 left no word: stopped, dead, or busy with something else; the others wait in "
            "exchange #41 of sp.outer[0] (layer 3, backward, step 9)");
}

TEST(PostMortem, NamesThoseThatAreBehind) {
  EXPECT_EQ(post_mortem_sentence({words(0, 41, true), words(1, 40, false), words(2, 41, true)}),
            "rank 1 (here, process 1001) did not reach what the others wait in, last seen in "
            "section step, after exchange #40 of sp.outer[0] (layer 3, backward, step 9); the "
            "others wait in exchange #41 of sp.outer[0] (layer 3, backward, step 9)");
}

TEST(PostMortem, NamesThoseThatCameTooLate) {
  EXPECT_THAT(post_mortem_sentence({words(0, 41, true), words(1, 41, true, 20)}),
              StartsWith("rank 1 (here, process 1001) came when the others had given up; the "
                         "others wait in exchange #41"));
  EXPECT_THAT(post_mortem_sentence({words(0, 41, true), words(1, 41, true, 2900)}),
              StartsWith("all ranks are in the same operations"));
}

class PostMortemFolder : public ::testing::Test {
 protected:
  PostMortemFolder() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ =
        fs::path(::testing::TempDir()) / fmt::format("post_mortem_{}_{}", test->name(), getpid());
  }
  ~PostMortemFolder() override { fs::remove_all(folder_); }

  PostMortemOptions options(int rank, int ranks, int patience_ms) const {
    return {folder_.string(), rank, ranks, std::chrono::milliseconds(patience_ms)};
  }
  std::string report() const {
    std::ifstream file(folder_ / "report.txt");
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }

  fs::path folder_;
};

// All leave when the report is there: nobody's patience, which would fail the test's, is used up.
TEST_F(PostMortemFolder, OneRankReportsForAll) {
  constexpr int kRanks = 4;
  std::vector<std::optional<std::string>> said(kRanks);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < kRanks; ++rank) {
    ranks.emplace_back([&, rank] {
      said[rank] = leave_post_mortem(options(rank, kRanks, 3'600'000),
                                     words(rank, rank == 2 ? 40 : 41, rank != 2));
    });
  }
  for (std::thread& rank : ranks) rank.join();
  EXPECT_EQ(std::count_if(said.begin(), said.end(), [](const auto& s) { return s.has_value(); }),
            1);
  for (const auto& sentence : said) {
    if (!sentence) continue;
    EXPECT_THAT(*sentence, StartsWith("rank 2 (here, process 1002) did not reach"));
  }
  for (int rank = 0; rank < kRanks; ++rank) {
    EXPECT_THAT(report(), HasSubstr(fmt::format("\nrank {} (here, process {}): section step", rank,
                                                1000 + rank)));
  }
  EXPECT_THAT(report(), HasSubstr("exchange #41 of sp.outer[0] (layer 3, backward, step 9) of 4 "
                                  "ranks, 0 bytes, unfinished for 3.000 s\n"));
}

TEST_F(PostMortemFolder, ARankThatDoesNotComeIsNotWaitedForForEver) {
  const auto said = leave_post_mortem(options(0, 2, 50), words(0, 41, true));
  ASSERT_TRUE(said);
  EXPECT_THAT(*said, StartsWith("rank 1 left no word"));
  EXPECT_THAT(report(), HasSubstr("\nrank 1: no word of it\n"));
}

TEST_F(PostMortemFolder, AFolderThatCannotBeWrittenIsSaid) {
  std::ofstream(folder_) << "a file";
  EXPECT_THROW(leave_post_mortem(options(0, 2, 50), words(0, 41, true)), OutputError);
}

}  // namespace
}  // namespace sprocket::launcher

#include "launcher/post_mortem.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <system_error>
#include <thread>

#include <fmt/format.h>
#include <google/protobuf/text_format.h>

#include "launcher/launch/operation_words.h"

namespace sprocket::launcher {
namespace {

namespace fs = std::filesystem;
using control::Heartbeat;
using control::LastWords;
using control::Operation;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kRound{20};
constexpr size_t kNamed = 8;
constexpr const char* kReport = "report.txt";

std::string path_of(const PostMortemOptions& options, const std::string& name) {
  return (fs::path(options.folder) / name).string();
}

std::string words_file(int rank) { return fmt::format("rank_{}.txtpb", rank); }

// Whole or not at all, for those that read it.
void write_whole(const std::string& path, const std::string& text) {
  const std::string draft = path + ".tmp";
  std::ofstream file(draft);
  file << text;
  file.close();
  std::error_code error;
  if (file) fs::rename(draft, path, error);
  if (!file || error) throw OutputError(fmt::format("{}: cannot be written", path));
}

// True for one of the ranks.
bool is_first_to_come(const PostMortemOptions& options) {
  const std::string path = path_of(options, "reporter");
  const int file = open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
  if (file < 0) return false;
  close(file);
  return true;
}

std::optional<LastWords> read_words(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  LastWords words;
  if (!file || !google::protobuf::TextFormat::ParseFromString(text.str(), &words)) return {};
  return words;
}

WordsByRank read_all(const PostMortemOptions& options) {
  WordsByRank words(options.ranks);
  for (int rank = 0; rank < options.ranks; ++rank) {
    words[rank] = read_words(path_of(options, words_file(rank)));
  }
  return words;
}

void wait_until(milliseconds patience, const std::function<bool()>& done) {
  const auto until = steady_clock::now() + patience;
  while (!done() && steady_clock::now() < until) std::this_thread::sleep_for(kRound);
}

std::vector<const Heartbeat*> beats_of(const WordsByRank& words) {
  std::vector<const Heartbeat*> beats;
  for (const auto& each : words) beats.push_back(each ? &each->heartbeat() : nullptr);
  return beats;
}

std::vector<int> without_words(const WordsByRank& words) {
  std::vector<int> ranks;
  for (size_t i = 0; i < words.size(); ++i) {
    if (!words[i]) ranks.push_back(static_cast<int>(i));
  }
  return ranks;
}

// Those that began the operation which another rank waited in for longest after more than half of
// that time.
std::vector<int> late_ranks(const std::vector<const Heartbeat*>& beats) {
  const Operation* longest = nullptr;
  for (const Heartbeat* beat : beats) {
    const Operation* operation = beat ? newest(*beat) : nullptr;
    if (!operation || !operation->unfinished()) continue;
    if (!longest || operation->age_ms() > longest->age_ms()) longest = operation;
  }
  std::vector<int> late;
  for (size_t i = 0; longest && i < beats.size(); ++i) {
    if (!beats[i]) continue;
    for (const Operation& operation : beats[i]->operation()) {
      if (operation.communicator() != longest->communicator() ||
          operation.leader() != longest->leader() || operation.sequence() != longest->sequence()) {
        continue;
      }
      if (operation.age_ms() < longest->age_ms() / 2) late.push_back(static_cast<int>(i));
    }
  }
  return late;
}

std::string name_of(const WordsByRank& words, int rank) {
  if (!words[rank]) return fmt::format("rank {}", rank);
  const control::Hello& hello = words[rank]->hello();
  return fmt::format("rank {} ({}, process {})", rank, hello.host(), hello.process());
}

std::string names_of(const WordsByRank& words, const std::vector<int>& ranks) {
  std::string names;
  for (size_t i = 0; i < ranks.size() && i < kNamed; ++i) {
    names += (i == 0 ? "" : ", ") + name_of(words, ranks[i]);
  }
  if (ranks.size() > kNamed) names += fmt::format(" and {} more", ranks.size() - kNamed);
  return names;
}

const char* section_of(const Heartbeat& beat) {
  return control::name_of(
      static_cast<control::Section>(std::clamp(beat.section(), 0, control::kSections - 1)));
}

}  // namespace

std::string post_mortem_folder() {
  for (const char* name : {"PMIX_NAMESPACE", "SLURM_JOB_ID"}) {
    if (const char* number = std::getenv(name)) return fmt::format("sprocket_hang_{}", number);
  }
  return fmt::format("sprocket_hang_{}", getpid());
}

std::string post_mortem_sentence(const WordsByRank& words) {
  const std::vector<const Heartbeat*> beats = beats_of(words);
  const auto others = [&](const std::vector<int>& blamed) {
    return what_others_wait_in(beats, blamed);
  };
  if (const std::vector<int> silent = without_words(words); !silent.empty()) {
    return fmt::format("{} left no word: stopped, dead, or busy with something else{}",
                       names_of(words, silent), others(silent));
  }
  if (const std::vector<int> behind = ranks_behind(beats); !behind.empty()) {
    const Operation* last = newest(*beats[behind.front()]);
    return fmt::format("{} did not reach what the others wait in, last seen in section {}{}{}",
                       names_of(words, behind), section_of(*beats[behind.front()]),
                       last ? ", after " + words_of(*last) : "", others(behind));
  }
  if (const std::vector<int> late = late_ranks(beats); !late.empty()) {
    return fmt::format("{} came when the others had given up{}", names_of(words, late),
                       others(late));
  }
  return fmt::format("all ranks are in the same operations: look at the network between them{}",
                     others({}));
}

std::string post_mortem_report(const WordsByRank& words) {
  std::string text = post_mortem_sentence(words) + "\n";
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string name = name_of(words, static_cast<int>(i));
    if (!words[i]) {
      text += fmt::format("\n{}: no word of it\n", name);
      continue;
    }
    const Heartbeat& beat = words[i]->heartbeat();
    text += fmt::format("\n{}: section {} for {:.1f} s, {} steps done\n  {}\n", name,
                        section_of(beat), 1e-3 * static_cast<double>(beat.section_age_ms()),
                        std::max<int64_t>(beat.step(), 0), words[i]->error());
    for (const Operation& operation : words[i]->dump().operation()) text += line_of(operation);
  }
  return text;
}

std::optional<std::string> leave_post_mortem(const PostMortemOptions& options,
                                             const LastWords& words) {
  std::error_code error;
  fs::create_directories(options.folder, error);
  if (error) {
    throw OutputError(fmt::format("{}: cannot be created: {}", options.folder, error.message()));
  }
  std::string text;
  google::protobuf::TextFormat::PrintToString(words, &text);
  write_whole(path_of(options, words_file(options.rank)), text);
  const std::string report = path_of(options, kReport);
  if (!is_first_to_come(options)) {
    wait_until(2 * options.patience, [&] { return fs::exists(report); });
    return std::nullopt;
  }
  WordsByRank all;
  wait_until(options.patience, [&] {
    all = read_all(options);
    return without_words(all).empty();
  });
  write_whole(report, post_mortem_report(all));
  return post_mortem_sentence(all);
}

}  // namespace sprocket::launcher

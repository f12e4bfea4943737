#include "runtime/checkpoint/run_checkpoints.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "base/log.h"
#include "runtime/checkpoint/manifest.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step_";
constexpr std::string_view kUnfinished = ".tmp-";

std::optional<int64_t> step_of(const std::string& name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const std::string digits = name.substr(kPrefix.size());
  const bool all_digits = std::all_of(digits.begin(), digits.end(),
                                      [](unsigned char c) { return std::isdigit(c) != 0; });
  if (digits.size() < 8 || digits.size() > 18 || !all_digits) return std::nullopt;
  return std::stoll(digits);
}

// nullopt: the folder has no checkpoint's name, it may be a run's. Throws InputError when there is
// no such folder.
std::optional<CheckpointPath> checkpoint_of_folder(const std::string& path) {
  const fs::path folder = fs::path(path) / "";  // a trailing slash must not hide the name
  if (!fs::is_directory(folder)) {
    throw InputError(
        fmt::format("{}: no such checkpoint; expected a folder {} or a run's folder "
                    "that holds some",
                    path, checkpoint_name(1000)));
  }
  const std::string own = folder.parent_path().string();
  const auto step = step_of(folder.parent_path().filename().string());
  return step ? std::optional<CheckpointPath>({own, *step}) : std::nullopt;
}

}  // namespace

std::string checkpoint_name(int64_t step) { return fmt::format("{}{:08}", kPrefix, step); }

std::vector<CheckpointPath> list_checkpoints(const std::string& run_folder) {
  std::vector<CheckpointPath> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(run_folder, error)) {
    const auto step = step_of(entry.path().filename().string());
    if (step && entry.is_directory()) found.push_back({entry.path().string(), *step});
  }
  std::sort(found.begin(), found.end(),
            [](const CheckpointPath& a, const CheckpointPath& b) { return a.step > b.step; });
  return found;
}

std::optional<CheckpointPath> find_newest_checkpoint(const std::string& run_folder) {
  for (const CheckpointPath& candidate : list_checkpoints(run_folder)) {
    const auto damage = find_damage(candidate.path, VerifyDepth::kContents);
    if (!damage) return candidate;
    spdlog::warn("{} is damaged and passed over: {}", candidate.path, *damage);
  }
  return std::nullopt;
}

std::vector<CheckpointPath> named_checkpoints(const std::string& path) {
  if (const auto one = checkpoint_of_folder(path)) return {*one};
  std::vector<CheckpointPath> found = list_checkpoints(path);
  if (found.empty()) {
    throw InputError(
        fmt::format("{}: no checkpoint found in it; expected a run's folder with some, such as {}",
                    path, checkpoint_name(1000)));
  }
  std::reverse(found.begin(), found.end());
  return found;
}

CheckpointPath open_checkpoint(const std::string& path) {
  if (const auto one = checkpoint_of_folder(path)) {
    if (const auto damage = find_damage(path, VerifyDepth::kContents)) {
      throw InputError(fmt::format("{} is no complete checkpoint: {}", path, *damage));
    }
    return *one;
  }
  if (auto newest = find_newest_checkpoint(path)) return *newest;
  const size_t damaged = list_checkpoints(path).size();
  throw InputError(fmt::format("{}: no complete checkpoint found in it ({})", path,
                               damaged == 0 ? "none at all" : fmt::format("{} damaged", damaged)));
}

CheckpointState read_state(const std::string& checkpoint_path) {
  const fs::path path = fs::path(checkpoint_path) / "state.txtpb";
  std::ifstream in(path);
  if (!in) throw InputError(fmt::format("{}: cannot be opened", path.string()));
  std::stringstream text;
  text << in.rdbuf();
  return parse_state(text.str(), path.string());
}

void remove_unfinished(const std::string& run_folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(run_folder, error)) {
    const std::string name = entry.path().filename().string();
    const size_t mark = name.find(kUnfinished);
    if (mark == std::string::npos || !step_of(name.substr(0, mark))) continue;
    spdlog::info("removing {}, which a save left unfinished", entry.path().string());
    fs::remove_all(entry.path(), error);
  }
}

void prune_checkpoints(const std::string& run_folder, const Retention& retention) {
  if (retention.last == 0) return;
  int complete = 0;
  for (const CheckpointPath& candidate : list_checkpoints(run_folder)) {
    if (find_damage(candidate.path, VerifyDepth::kSizes)) continue;
    if (++complete <= retention.last) continue;
    if (retention.every > 0 && candidate.step % retention.every == 0) continue;
    // The manifest goes first: a removal cut short leaves no folder that looks complete.
    std::error_code error;
    fs::remove(fs::path(candidate.path) / kManifestName, error);
    if (!error) fs::remove_all(candidate.path, error);
    if (error) spdlog::warn("{} could not be removed: {}", candidate.path, error.message());
  }
}

}  // namespace sprocket::runtime

#include "runtime/checkpoint/checkpoint_summary.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "runtime/checkpoint/average.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;

std::string name_of_part(const std::string& folder, bool adapters) {
  if (folder == "model") return adapters ? "adapters" : "weights";
  if (folder == "optim") return "moments";
  if (folder == "fake_score_optim") return "its moments";
  if (folder == kAveragePart) return "average";
  return folder == "fake_score" ? "fake score" : folder;
}

void count_files(CheckpointSummary& summary) {
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator(summary.checkpoint.path, error)) {
    std::error_code gone;
    if (!entry.is_regular_file(gone)) continue;
    const uintmax_t bytes = entry.file_size(gone);
    if (gone) continue;
    ++summary.files;
    summary.bytes += bytes;
  }
}

// In the order in which a checkpoint is saved.
std::vector<std::string> folders_of(const std::string& checkpoint) {
  std::vector<std::string> folders;
  for (const char* folder : {"model", "optim", "fake_score", "fake_score_optim", kAveragePart}) {
    if (fs::is_directory(fs::path(checkpoint) / folder)) folders.emplace_back(folder);
  }
  return folders;
}

}  // namespace

CheckpointSummary summarise_checkpoint(const CheckpointPath& checkpoint, VerifyDepth depth) {
  CheckpointSummary summary;
  summary.checkpoint = checkpoint;
  summary.damage = find_all_damage(checkpoint.path, depth);
  count_files(summary);
  bool adapters = false;
  try {
    adapters = read_state(checkpoint.path).job().training().lora().rank() > 0;
  } catch (const InputError& unreadable) {
    if (summary.damage.empty()) summary.damage.emplace_back(unreadable.what());
  }
  for (const std::string& folder : folders_of(checkpoint.path)) {
    summary.holds.push_back(name_of_part(folder, adapters));
  }
  return summary;
}

std::vector<CheckpointSummary> summarise_checkpoints(const std::string& path, VerifyDepth depth) {
  std::vector<CheckpointSummary> summaries;
  for (const CheckpointPath& checkpoint : named_checkpoints(path)) {
    summaries.push_back(summarise_checkpoint(checkpoint, depth));
  }
  return summaries;
}

}  // namespace sprocket::runtime

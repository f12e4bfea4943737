#include "runtime/jobs/run_folder.h"

#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "configs/defaults.h"
#include "runtime/checkpoint/durable.h"
#include "runtime/media/output_file.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> traces_of_a_run(const std::string& folder) {
  std::vector<std::string> found;
  for (const char* name : {"job.txtpb", "metrics.jsonl", "profile.json"}) {
    if (fs::exists(fs::path(folder) / name)) found.emplace_back(name);
  }
  for (const CheckpointPath& checkpoint : list_checkpoints(folder)) {
    found.push_back(fs::path(checkpoint.path).filename().string());
  }
  return found;
}

bool lies_in(const std::string& path, const std::string& folder) {
  std::error_code error;
  return fs::equivalent(path, folder, error) ||
         fs::equivalent(fs::path(path).parent_path(), folder, error);
}

}  // namespace

std::optional<CheckpointPath> prepare_run_folder(const config::Job& job,
                                                 const std::string& resume) {
  const std::string& folder = job.output().directory();
  std::optional<CheckpointPath> start;
  if (resume == "latest") {
    start = find_newest_checkpoint(folder);
    if (!start && !list_checkpoints(folder).empty()) {
      throw InputError(
          fmt::format("{}: none of its checkpoints is complete; nothing to resume from", folder));
    }
  } else if (resume != "none") {
    start = open_checkpoint(resume);
  }
  if (start && resume != "latest" && lies_in(start->path, folder)) {
    const CheckpointPath newest = list_checkpoints(folder).front();
    if (newest.step > start->step) {
      throw OutputError(fmt::format(
          "{} holds {}, which is newer than {}; resuming from there would mix two runs: "
          "choose another output.directory (--output), or remove the newer ones",
          folder, fs::path(newest.path).filename().string(), start->path));
    }
  }
  const bool continues = resume == "latest" || (start && lies_in(start->path, folder));
  if (!continues) {
    const std::vector<std::string> found = traces_of_a_run(folder);
    if (!found.empty()) {
      throw OutputError(
          fmt::format("{} already holds a run ({}); expected a new or an empty folder: choose "
                      "another output.directory (--output), or continue with --resume latest",
                      folder, fmt::join(found, ", ")));
    }
  }
  create_folder(folder);
  remove_unfinished(folder);
  const std::string text = config::to_text(job);
  media::write_output_file((fs::path(folder) / "job.txtpb").string(),
                           std::as_bytes(std::span(text)));
  if (start) spdlog::info("resuming from {}", start->path);
  return start;
}

}  // namespace sprocket::runtime

// The checkpoints of a run's folder: step_00001000, step_00002000, …
//
// Which one is the newest is asked of the manifests, never of a pointer file or of a folder's mere
// existence.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/checkpoint/state_text.h"

namespace sprocket::runtime {

struct CheckpointPath {
  std::string path;
  int64_t step = 0;
};

// "step_00001000"
std::string checkpoint_name(int64_t step);

// Folders with a checkpoint's name, complete or not, newest first. Empty when run_folder is none.
std::vector<CheckpointPath> list_checkpoints(const std::string& run_folder);

// The checkpoints that `path` names, complete or not, oldest first: one by its own folder, or those
// of a run. Throws InputError where it is no folder, or holds none.
std::vector<CheckpointPath> named_checkpoints(const std::string& path);

// The newest one whose manifest verifies, contents included. Damaged newer ones are passed over
// with a warning that says what is wrong.
std::optional<CheckpointPath> find_newest_checkpoint(const std::string& run_folder);

// `path` is a checkpoint's folder or a run's. Throws InputError when it is damaged (what, expected,
// found) or there is none.
CheckpointPath open_checkpoint(const std::string& path);

// Throws InputError for a missing, unreadable or newer state.
CheckpointState read_state(const std::string& checkpoint_path);

// Removes what saves that did not finish left behind. Not while one is under way.
void remove_unfinished(const std::string& run_folder);

// Which complete checkpoints stay: the newest ones, and those of every so many steps.
struct Retention {
  int last = 0;       // 0: all
  int64_t every = 0;  // 0: none but the newest
};

// Removes the other complete ones. Damaged ones stay: they may hold what a person wants to rescue.
void prune_checkpoints(const std::string& run_folder, const Retention& retention);

}  // namespace sprocket::runtime

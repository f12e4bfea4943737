// Real clips that some tests use when they are there (CI provides them beside the checkout).
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

namespace sprocket::testing {

// The mp4 files of the folder SPROCKET_CLIPS (set by CMake), sorted; empty without the folder.
inline std::vector<std::string> real_clips() {
  std::vector<std::string> clips;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(SPROCKET_CLIPS, ignored)) {
    if (entry.path().extension() == ".mp4") clips.push_back(entry.path().string());
  }
  std::sort(clips.begin(), clips.end());
  return clips;
}

}  // namespace sprocket::testing

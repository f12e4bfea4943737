// What it takes for a file or a name to survive a power cut.
#pragma once

#include <string>

namespace sprocket::runtime {

// Waits until the disk holds the names in a folder. Throws OutputError.
void sync_folder(const std::string& folder);

// Creates a folder and its parents. Throws OutputError with the path and the system's reason.
void create_folder(const std::string& folder);

// Puts the folder `from` in the place of `to` (both in one parent), then syncs the parent. A folder
// that was `to` is there until the new one takes its place. Throws OutputError.
void put_folder(const std::string& from, const std::string& to);

}  // namespace sprocket::runtime

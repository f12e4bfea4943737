// MANIFEST: what a complete checkpoint consists of.
//
//   sprocket manifest 1
//   <bytes> <XXH3-64 of the contents, 16 hex digits> <file, relative, no spaces>
//   …one line for each file, sorted by name
//   end <number of files> <XXH3-64 of all lines above>
//
// It is written after everything it lists has reached the disk. A folder whose manifest verifies is
// a checkpoint; any other is not.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sprocket::runtime {

inline constexpr std::string_view kManifestName = "MANIFEST";

struct ManifestEntry {
  std::string file;
  uint64_t bytes = 0;
  uint64_t hash = 0;
  bool operator==(const ManifestEntry&) const = default;
};

std::string manifest_text(std::vector<ManifestEntry> entries);
// Throws InputError naming `where`, the line, what was expected and found.
std::vector<ManifestEntry> parse_manifest(std::string_view text, const std::string& where);

// Size and hash of folder/file. Throws InputError when it cannot be read.
ManifestEntry describe_file(const std::string& folder, const std::string& file);

enum class VerifyDepth {
  kSizes,     // every file is there and has its size
  kContents,  // and its hash
};

// The manifest of a folder. Throws InputError when it is missing, too large or damaged.
std::vector<ManifestEntry> read_manifest(const std::string& folder);

// Why the folder is no complete checkpoint, naming the file, expected and found; nullopt: it is
// one.
std::optional<std::string> find_damage(const std::string& folder, VerifyDepth depth);

// All reasons, one for each file that has one.
std::vector<std::string> find_all_damage(const std::string& folder, VerifyDepth depth);

}  // namespace sprocket::runtime

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sprocket::data {

// XXH3, 64 bits, of a file's bytes, and how many there are. Throws InputError with the system's
// reason when it cannot be read.
struct FileHash {
  uint64_t bytes = 0;
  uint64_t xxh3 = 0;
};
FileHash hash_file(const std::string& path);

// 16 lower-case hexadecimal digits, and back (nullopt for anything else).
std::string hash_text(uint64_t hash);
std::optional<uint64_t> parse_hash(std::string_view text);

}  // namespace sprocket::data

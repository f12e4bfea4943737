#include "configs/text_file.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include <fmt/format.h>

#include "base/error.h"

namespace sprocket::config {

std::string read_text_file(const std::string& file, const std::string& what) {
  namespace fs = std::filesystem;
  constexpr uintmax_t kLargestFile = 1 << 20;
  const std::string expected = fmt::format("{}: expected {} in text format, found ", file, what);
  std::error_code error;
  const fs::file_status status = fs::status(file, error);
  if (!fs::exists(status)) throw ConfigError(expected + "no such file");
  if (!fs::is_regular_file(status)) throw ConfigError(expected + "no regular file");
  const uintmax_t size = fs::file_size(file, error);
  if (error || size > kLargestFile) {
    throw ConfigError(expected + fmt::format("{} bytes; it has at most {}", size, kLargestFile));
  }
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  if (!stream) throw ConfigError(expected + "a file that cannot be read");
  return text.str();
}

}  // namespace sprocket::config

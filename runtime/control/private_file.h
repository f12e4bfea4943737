// Files that hold a secret: of mode 0600, and refused by readers when they are anything else.
#pragma once

#include <cstddef>
#include <string>

namespace sprocket::control {

// Removed on destruction.
class PrivateFile {
 public:
  // Whole or not there at all, whatever was at `path` before. Throws OutputError.
  PrivateFile(const std::string& path, const std::string& text);
  ~PrivateFile();
  PrivateFile(const PrivateFile&) = delete;
  PrivateFile& operator=(const PrivateFile&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// 16 random hexadecimal digits, for a name that is nobody else's.
std::string random_name();

// Throws InputError for a file that others can read, that another user owns or that is longer than
// `limit` bytes, and for none; then it says `expected`. Its messages never repeat the contents.
std::string read_private_file(const std::string& path, size_t limit, const std::string& expected);

}  // namespace sprocket::control

#include "runtime/checkpoint/durable.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/error.h"

namespace sprocket::runtime {

namespace fs = std::filesystem;

void sync_folder(const std::string& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) {
    throw OutputError(fmt::format("{}: cannot be opened: {}", folder, std::strerror(errno)));
  }
  const int result = ::fsync(descriptor);
  const int reason = errno;
  ::close(descriptor);
  // Some network file systems refuse to sync folders, which then need none.
  if (result != 0 && reason != EINVAL && reason != ENOTSUP) {
    throw OutputError(fmt::format("{}: cannot be synced: {}", folder, std::strerror(reason)));
  }
}

void create_folder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (!error && !fs::is_directory(folder)) error = std::make_error_code(std::errc::not_a_directory);
  if (error) {
    throw OutputError(fmt::format("{}: cannot be created: {}", folder, error.message()));
  }
}

void put_folder(const std::string& from, const std::string& to) {
  // Exchanging the two names is atomic: at no moment is there no folder `to`.
  const bool replaces = fs::exists(to);
  const unsigned flags = replaces ? RENAME_EXCHANGE : 0;
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) != 0) {
    throw OutputError(
        fmt::format("{}: cannot be renamed to {}: {}", from, to, std::strerror(errno)));
  }
  sync_folder(fs::path(to).parent_path().string());
  if (replaces) {
    std::error_code ignored;  // the former folder is a leftover by name, removed at the next start
    fs::remove_all(from, ignored);
  }
}

}  // namespace sprocket::runtime

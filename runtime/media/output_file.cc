#include "runtime/media/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/error.h"

namespace sprocket::media {
namespace {

// 0, or the errno of the step that failed.
int write_all(const std::string& path, std::span<const std::byte> bytes) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) return errno;
  int error = 0;
  while (!bytes.empty() && error == 0) {
    const ssize_t count = ::write(descriptor, bytes.data(), bytes.size());
    if (count > 0) {
      bytes = bytes.subspan(static_cast<size_t>(count));
    } else if (count == 0 || errno != EINTR) {
      error = count == 0 ? EIO : errno;
    }
  }
  // A pipe or device has nothing to flush and says EINVAL.
  if (error == 0 && ::fsync(descriptor) != 0 && errno != EINVAL) error = errno;
  if (::close(descriptor) != 0 && error == 0) error = errno;
  return error;
}

}  // namespace

void write_output_file(const std::string& path, std::span<const std::byte> bytes) {
  std::error_code ignored;
  const bool direct =
      std::filesystem::exists(path, ignored) && !std::filesystem::is_regular_file(path, ignored);
  const std::string target = direct ? path : fmt::format("{}.tmp-{}", path, ::getpid());
  int error = write_all(target, bytes);
  if (!direct) {
    if (error == 0 && std::rename(target.c_str(), path.c_str()) != 0) error = errno;
    if (error != 0) ::unlink(target.c_str());
  }
  if (error != 0) {
    throw OutputError(fmt::format("{}: cannot be written: {}", path, std::strerror(error)));
  }
}

}  // namespace sprocket::media

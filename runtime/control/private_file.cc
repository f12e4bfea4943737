#include "runtime/control/private_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "runtime/control/secret.h"

namespace sprocket::control {
namespace {

std::string reason() { return std::strerror(errno); }

struct Descriptor {
  explicit Descriptor(int value) : value(value) {}
  ~Descriptor() {
    if (value >= 0) close(value);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  const int value;
};

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw InputError(fmt::format("{}: {}", path, what));
}

void check_is_private(const std::string& path, const struct stat& status) {
  if (!S_ISREG(status.st_mode)) refuse(path, "expected a file");
  if (status.st_uid != geteuid()) {
    refuse(path, fmt::format("expected a file of user {}, found one of user {}", geteuid(),
                             status.st_uid));
  }
  if ((status.st_mode & 077) != 0) {
    refuse(path, fmt::format("expected a file that only its user can read (mode 0600), found mode "
                             "{:04o}",
                             status.st_mode & 07777));
  }
}

}  // namespace

std::string random_name() {
  std::string name;
  for (const char byte : random_bytes(8)) {
    name += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  }
  return name;
}

PrivateFile::PrivateFile(const std::string& path, const std::string& text) : path_(path) {
  const std::string made = fmt::format("{}.{}", path, random_name());
  const Descriptor file(open(made.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600));
  if (file.value < 0) throw OutputError(fmt::format("{}: {}", path, reason()));
  const bool written =
      write(file.value, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (!written || std::rename(made.c_str(), path.c_str()) != 0) {
    const std::string why = reason();
    unlink(made.c_str());
    throw OutputError(fmt::format("{}: {}", path, why));
  }
}

PrivateFile::~PrivateFile() { unlink(path_.c_str()); }

std::string read_private_file(const std::string& path, size_t limit, const std::string& expected) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.value < 0) refuse(path, fmt::format("{}; expected {}", reason(), expected));
  struct stat status {};
  if (fstat(file.value, &status) != 0) refuse(path, reason());
  check_is_private(path, status);
  std::string text(limit + 1, '\0');
  const ssize_t count = read(file.value, text.data(), text.size());
  if (count < 0) refuse(path, reason());
  if (static_cast<size_t>(count) > limit) refuse(path, "expected a few lines, found more");
  text.resize(static_cast<size_t>(count));
  return text;
}

}  // namespace sprocket::control

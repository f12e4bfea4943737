#include "runtime/control/contact_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "base/error.h"

namespace sprocket::control {
namespace {

constexpr const char* kFirstLine = "sprocket control 1";
constexpr size_t kMaxBytes = 4096;

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

Address parse_address(const std::string& path, const std::string& line) {
  const size_t space = line.find(' ');
  Address address;
  address.host = line.substr(0, space);
  const char* const from = line.data() + std::min(space, line.size() - 1) + 1;
  const char* const end = line.data() + line.size();
  const auto [rest, error] = std::from_chars(from, end, address.port);
  if (space == std::string::npos || error != std::errc() || rest != end || address.port == 0) {
    refuse(path, "expected lines of an address and a port");
  }
  return address;
}

}  // namespace

ContactFile::ContactFile(const std::string& folder, const Contact& contact) {
  std::string text = fmt::format("{}\n{}\n", kFirstLine, contact.secret.hex());
  for (const Address& address : contact.addresses) {
    text += fmt::format("{} {}\n", address.host, address.port);
  }
  std::string name;
  for (const char byte : random_bytes(8)) {
    name += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  }
  path_ = (std::filesystem::path(folder) / (".sprocket-" + name)).string();
  const Descriptor file(open(path_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600));
  if (file.value < 0) throw OutputError(fmt::format("{}: {}", path_, reason()));
  if (write(file.value, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    const std::string why = reason();
    unlink(path_.c_str());
    throw OutputError(fmt::format("{}: {}", path_, why));
  }
}

ContactFile::~ContactFile() { unlink(path_.c_str()); }

Contact read_contact_file(const std::string& path) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.value < 0) {
    refuse(path, fmt::format("{}; expected the file that `sprocket launch` wrote for its ranks, in "
                             "a folder that all hosts see",
                             reason()));
  }
  struct stat status {};
  if (fstat(file.value, &status) != 0) refuse(path, reason());
  check_is_private(path, status);
  std::string text(kMaxBytes + 1, '\0');
  const ssize_t count = read(file.value, text.data(), text.size());
  if (count < 0) refuse(path, reason());
  if (static_cast<size_t>(count) > kMaxBytes) refuse(path, "expected a few lines, found more");
  text.resize(static_cast<size_t>(count));
  std::istringstream lines(text);
  std::string first, digits;
  std::getline(lines, first);
  std::getline(lines, digits);
  if (first != kFirstLine)
    refuse(path, fmt::format("expected \"{}\" as its first line", kFirstLine));
  Contact contact{Secret::from_hex(digits), {}};
  for (std::string line; std::getline(lines, line) && !line.empty();) {
    contact.addresses.push_back(parse_address(path, line));
  }
  if (contact.addresses.empty()) refuse(path, "expected an address, found none");
  return contact;
}

}  // namespace sprocket::control

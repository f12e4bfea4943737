#include "runtime/control/contact_file.h"

#include <charconv>
#include <filesystem>
#include <sstream>

#include "base/error.h"

namespace sprocket::control {
namespace {

constexpr const char* kFirstLine = "sprocket control 1";
constexpr size_t kMaxBytes = 4096;

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw InputError(fmt::format("{}: {}", path, what));
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
  const std::string name = ".sprocket-" + random_name();
  file_.emplace((std::filesystem::path(folder) / name).string(), text);
}

Contact read_contact_file(const std::string& path) {
  const std::string text = read_private_file(
      path, kMaxBytes,
      "the file that `sprocket launch` wrote for its ranks, in a folder that all hosts see");
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

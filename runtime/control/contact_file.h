// How a rank learns of its supervisor: a file that only its user can read, which is gone when the
// job has ended (docs/decisions/control_secret.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/control/private_file.h"
#include "runtime/control/secret.h"

namespace sprocket::control {

struct Address {
  std::string host;  // numeric
  uint16_t port = 0;
};

struct Contact {
  Secret secret;
  std::vector<Address> addresses;  // of one supervisor, the likeliest first
};

// Made with mode 0600, removed on destruction.
class ContactFile {
 public:
  // In `folder`, under a new name. Throws OutputError.
  ContactFile(const std::string& folder, const Contact& contact);

  const std::string& path() const { return file_->path(); }

 private:
  std::optional<PrivateFile> file_;
};

// Throws InputError for a file that others can read or that another user owns, and for contents
// that are none; its messages never repeat the contents.
Contact read_contact_file(const std::string& path);

}  // namespace sprocket::control

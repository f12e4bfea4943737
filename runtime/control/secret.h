// The one-time secret of a supervised job, and proofs of knowing it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sprocket::control {

inline constexpr size_t kSecretBytes = 32;
inline constexpr size_t kNonceBytes = 32;

// Cryptographically random bytes. InternalError when the system has none.
std::string random_bytes(size_t count);

class Secret {
 public:
  static Secret random();
  // Of 64 hexadecimal digits; InputError, which does not repeat them, for anything else.
  static Secret from_hex(std::string_view digits);
  // Overwrites the bytes.
  ~Secret();
  Secret(const Secret&) = default;
  Secret& operator=(const Secret&) = default;

  std::string hex() const;
  // HMAC-SHA256 of `text`.
  std::string mac(std::string_view text) const;

 private:
  explicit Secret(std::string bytes) : bytes_(std::move(bytes)) {}
  std::string bytes_;
};

// In a time that does not depend on where they differ.
bool equal_macs(std::string_view a, std::string_view b);

}  // namespace sprocket::control

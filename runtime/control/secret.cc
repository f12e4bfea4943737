#include "runtime/control/secret.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <array>

#include "base/error.h"

namespace sprocket::control {

std::string random_bytes(size_t count) {
  std::string bytes(count, '\0');
  const int got =
      RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  SPROCKET_CHECK(got == 1, "the system has no random bytes");
  return bytes;
}

Secret Secret::random() { return Secret(random_bytes(kSecretBytes)); }

Secret Secret::from_hex(std::string_view digits) {
  const auto value = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  bool legal = digits.size() == 2 * kSecretBytes;
  std::string bytes;
  for (size_t i = 0; legal && i < digits.size(); i += 2) {
    const int high = value(digits[i]), low = value(digits[i + 1]);
    legal = high >= 0 && low >= 0;
    bytes.push_back(static_cast<char>(high << 4 | low));
  }
  if (!legal) {
    throw InputError(
        fmt::format("secret: expected {} hexadecimal digits in lower case, found {} characters "
                    "that are not all of them",
                    2 * kSecretBytes, digits.size()));
  }
  return Secret(std::move(bytes));
}

Secret::~Secret() { OPENSSL_cleanse(bytes_.data(), bytes_.size()); }

std::string Secret::hex() const {
  std::string text;
  for (const char byte : bytes_) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

std::string Secret::mac(std::string_view text) const {
  std::array<unsigned char, EVP_MAX_MD_SIZE> out{};
  unsigned length = 0;
  const auto* const done =
      HMAC(EVP_sha256(), bytes_.data(), static_cast<int>(bytes_.size()),
           reinterpret_cast<const unsigned char*>(text.data()), text.size(), out.data(), &length);
  SPROCKET_CHECK(done != nullptr, "libcrypto could not compute an HMAC-SHA256");
  return {reinterpret_cast<const char*>(out.data()), length};
}

bool equal_macs(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace sprocket::control

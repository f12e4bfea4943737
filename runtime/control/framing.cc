#include "runtime/control/framing.h"

#include <cstdint>

#include "base/error.h"

namespace sprocket::control {
namespace {

constexpr size_t kHeader = 4;

}  // namespace

std::string frame(std::string_view message) {
  SPROCKET_CHECK(!message.empty() && message.size() <= kMessageLimit,
                 "a control message has 1 to {} bytes, found {}", kMessageLimit, message.size());
  std::string bytes(kHeader, '\0');
  for (size_t i = 0; i < kHeader; ++i) {
    bytes[i] = static_cast<char>(message.size() >> (8 * (kHeader - 1 - i)) & 0xff);
  }
  return bytes.append(message);
}

std::optional<std::string> FrameReader::next() {
  if (buffer_.size() < kHeader) return std::nullopt;
  size_t length = 0;
  for (size_t i = 0; i < kHeader; ++i) length = length << 8 | static_cast<uint8_t>(buffer_[i]);
  if (length == 0 || length > limit_) {
    throw InputError(
        fmt::format("control connection: expected a message of 1 to {} bytes, found a length of {}",
                    limit_, length));
  }
  if (buffer_.size() < kHeader + length) return std::nullopt;
  std::string message = buffer_.substr(kHeader, length);
  buffer_.erase(0, kHeader + length);
  return message;
}

}  // namespace sprocket::control

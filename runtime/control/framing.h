// Messages on a stream of bytes: four bytes of length, big-endian, then the message.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace sprocket::control {

// Of a message before its sender has proved to know the secret, and after.
inline constexpr size_t kGreetingLimit = 4096;
inline constexpr size_t kMessageLimit = size_t{1} << 20;

// The bytes to send. InternalError for an empty message or one above kMessageLimit.
std::string frame(std::string_view message);

// Takes bytes as they come and gives back whole messages. It never holds more than the limit and
// what one append() brings.
class FrameReader {
 public:
  explicit FrameReader(size_t limit) : limit_(limit) {}
  void set_limit(size_t limit) { limit_ = limit; }

  void append(std::string_view bytes) { buffer_.append(bytes); }
  // The next message, if all of it is there. Throws InputError for a length of 0 or above the
  // limit, as soon as the length itself is there; nothing after that can be read.
  std::optional<std::string> next();

 private:
  size_t limit_;
  std::string buffer_;
};

}  // namespace sprocket::control

// Messages from a stream of bytes.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "runtime/control/control.pb.h"
#include "runtime/control/framing.h"

namespace sprocket::control {

class MessageReader {
 public:
  explicit MessageReader(size_t limit) : frames_(limit) {}
  void set_limit(size_t limit) { frames_.set_limit(limit); }

  void append(std::string_view bytes) { frames_.append(bytes); }
  // The next message, if all of it is there. Throws InputError for a length that FrameReader
  // refuses and for bytes that are no message; nothing after that can be read.
  std::optional<Message> next();

 private:
  FrameReader frames_;
};

}  // namespace sprocket::control

#include "runtime/control/message_reader.h"

#include "base/error.h"

namespace sprocket::control {

std::optional<Message> MessageReader::next() {
  const std::optional<std::string> bytes = frames_.next();
  if (!bytes) return std::nullopt;
  Message message;
  if (!message.ParseFromString(*bytes)) {
    throw InputError(
        fmt::format("control connection: expected a message, found {} other bytes", bytes->size()));
  }
  return message;
}

}  // namespace sprocket::control

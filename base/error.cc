#include "base/error.h"

namespace sprocket {
namespace {

std::string comm_message(const CommError::Where& where, const std::string& what) {
  std::string text = fmt::format("[rank {}/{} {} seq {}] {}: {}", where.rank, where.size,
                                 where.communicator, where.sequence, where.op, what);
  if (where.peer >= 0) text += fmt::format(" (peer {})", where.peer);
  return text;
}

}  // namespace

CommError::CommError(Where where, const std::string& what)
    : Error(comm_message(where, what)), where_(std::move(where)) {}

namespace internal {

void throw_check_failed(const char* file, int line, const std::string& text) {
  throw InternalError(fmt::format("{}:{}: {}", file, line, text));
}

}  // namespace internal
}  // namespace sprocket

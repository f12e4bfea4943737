// The one hierarchy of errors. A message says what was expected, what was found, and where.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include <fmt/format.h>

namespace sprocket {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The user's job description or command line is wrong. Nothing has been run.
class ConfigError : public Error {
 public:
  using Error::Error;
};

// A file or a peer's bytes are wrong.
class InputError : public Error {
 public:
  using Error::Error;
};

// An output could not be written (disk full, read-only folder, failing rename).
class OutputError : public Error {
 public:
  using Error::Error;
};

// A loss or a gradient is no longer a number.
class NonFiniteError : public Error {
 public:
  using Error::Error;
};

class CudaError : public Error {
 public:
  using Error::Error;
  CudaError(const std::string& what, int code) : Error(what), code_(code) {}
  // The runtime's own code; 0 when the error was not the runtime's.
  int code() const { return code_; }

 private:
  int code_ = 0;
};

// A bug in the program: an invariant does not hold.
class InternalError : public Error {
 public:
  using Error::Error;
};

// A collective failed, timed out, was aborted, or ranks disagree about it.
class CommError : public Error {
 public:
  struct Where {
    std::string communicator;  // for example "sp.outer"
    std::string op;
    int64_t sequence = -1;
    int rank = -1;
    int size = -1;
    int peer = -1;  // -1: none in particular
  };
  CommError(Where where, const std::string& what);
  const Where& where() const { return where_; }

 private:
  Where where_;
};

namespace internal {
[[noreturn]] void throw_check_failed(const char* file, int line, const std::string& text);
}  // namespace internal

}  // namespace sprocket

// Invariants of the program itself; what a user, a file or a peer can cause gets its own typed
// error.
#define SPROCKET_CHECK(condition, ...)                                                    \
  do {                                                                                    \
    if (!(condition)) [[unlikely]] {                                                      \
      ::sprocket::internal::throw_check_failed(                                           \
          __FILE__, __LINE__, std::string(#condition) + ": " + fmt::format(__VA_ARGS__)); \
    }                                                                                     \
  } while (0)

#define SPROCKET_CHECK_OP_(left, op, right)                                                     \
  do {                                                                                          \
    const auto& sprocket_left_ = (left);                                                        \
    const auto& sprocket_right_ = (right);                                                      \
    if (!(sprocket_left_ op sprocket_right_)) [[unlikely]] {                                    \
      ::sprocket::internal::throw_check_failed(                                                 \
          __FILE__, __LINE__,                                                                   \
          fmt::format("expected {} {} {}, found {} and {}", #left, #op, #right, sprocket_left_, \
                      sprocket_right_));                                                        \
    }                                                                                           \
  } while (0)

#define SPROCKET_CHECK_EQ(left, right) SPROCKET_CHECK_OP_(left, ==, right)
#define SPROCKET_CHECK_LE(left, right) SPROCKET_CHECK_OP_(left, <=, right)
#define SPROCKET_CHECK_LT(left, right) SPROCKET_CHECK_OP_(left, <, right)
#define SPROCKET_CHECK_GE(left, right) SPROCKET_CHECK_OP_(left, >=, right)

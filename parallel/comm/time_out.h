// Which failures mean that an operation was not completed in time.
#pragma once

#include <string_view>

#include "base/error.h"

namespace sprocket::comm {

// How such a failure's text has it, on the rank whose patience ended and, as the reason of the
// abort, on all others.
inline constexpr std::string_view kTimedOut = "timed out after";

inline bool is_time_out(const CommError& error) {
  return std::string_view(error.what()).find(kTimedOut) != std::string_view::npos;
}

}  // namespace sprocket::comm

// A bound for the nesting of JSON that users give. nlohmann-json reads any depth, but writes and
// copies values recursively: a file of a million brackets would overrun the stack.
#pragma once

#include <string>

#include <fmt/format.h>

#include "base/error.h"

namespace sprocket {

// Far above any use.
constexpr int kDeepestJson = 64;

// For the callback of nlohmann's parser; `source` is what the error names.
inline void check_json_depth(int depth, const std::string& source) {
  if (depth <= kDeepestJson) return;
  throw InputError(fmt::format("{}: expected at most {} levels of lists and objects, found more",
                               source, kDeepestJson));
}

// Json::parse of text in memory, bounded. Throws what it throws, and InputError.
template <typename Json>
Json parse_bounded_json(const std::string& text, const std::string& source) {
  return Json::parse(text, [&source](int depth, typename Json::parse_event_t, Json&) {
    check_json_depth(depth, source);
    return true;
  });
}

}  // namespace sprocket

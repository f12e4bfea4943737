// Suggestions for misspelt names.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sprocket::config {

// The candidate nearest to `name` by edit distance, if it is near enough to be what was meant; else
// empty.
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace sprocket::config

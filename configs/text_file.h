#pragma once

#include <string>

namespace sprocket::config {

// The contents of a text file of at most 1 MiB. Throws ConfigError, saying that `what` ("a job
// description") was expected.
std::string read_text_file(const std::string& file, const std::string& what);

}  // namespace sprocket::config

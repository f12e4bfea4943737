// Writing a finished file in one go, so that a reader sees all of it or the former one.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace sprocket::media {

// Writes `bytes` to a temporary file beside `path`, flushes it to the disk and renames it to
// `path`. (A path that exists and is no regular file, such as a pipe, is written directly.) Throws
// OutputError with the path and the system's reason; nothing of the temporary file remains.
void write_output_file(const std::string& path, std::span<const std::byte> bytes);

}  // namespace sprocket::media

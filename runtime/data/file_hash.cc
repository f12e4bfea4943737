#include "runtime/data/file_hash.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <vector>

#include "base/error.h"

namespace sprocket::data {

FileHash hash_file(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    throw InputError(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
  }
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(),
                                                                       &XXH3_freeState);
  XXH3_64bits_reset(state.get());
  std::vector<char> buffer(1 << 20);
  FileHash result;
  ssize_t count = 0;
  do {
    count = ::read(descriptor, buffer.data(), buffer.size());
    if (count > 0) {
      XXH3_64bits_update(state.get(), buffer.data(), static_cast<size_t>(count));
      result.bytes += static_cast<uint64_t>(count);
    }
  } while (count > 0 || (count < 0 && errno == EINTR));
  const int error = count < 0 ? errno : 0;
  ::close(descriptor);
  if (error != 0) {
    throw InputError(fmt::format("{}: cannot be read: {}", path, std::strerror(error)));
  }
  result.xxh3 = XXH3_64bits_digest(state.get());
  return result;
}

std::string hash_text(uint64_t hash) { return fmt::format("{:016x}", hash); }

std::optional<uint64_t> parse_hash(std::string_view text) {
  uint64_t hash = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), hash, 16);
  if (error != std::errc() || end != text.data() + text.size() || text != hash_text(hash)) {
    return std::nullopt;
  }
  return hash;
}

}  // namespace sprocket::data

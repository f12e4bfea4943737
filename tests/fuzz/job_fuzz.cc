// Any text and any flags are loaded as a job or refused with a ConfigError that says where and
// what. What is loaded is written as text that loads the same.
//
// Input: one byte for the purpose, one for the ranks (0: unknown), the file's text; then, each
// after a byte of 0, texts of --set, of which three are read.
#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "configs/defaults.h"
#include "configs/load.h"
#include "tests/fuzz/expect.h"

namespace sprocket::config {
namespace {

std::vector<std::string> split(const std::string& text) {
  constexpr size_t kMostParts = 4;  // inputs full of zeros would be hundreds of flags
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size() && parts.size() < kMostParts;) {
    const size_t end = std::min(text.find('\0', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

void load(const uint8_t* data, size_t size) {
  LoadOptions options;
  options.purpose = static_cast<Purpose>(data[0] % 6);
  if (data[1] != 0) options.world = data[1];
  const std::vector<std::string> parts =
      split(std::string(reinterpret_cast<const char*>(data) + 2, size - 2));
  const std::vector<std::string> flags(parts.begin() + 1, parts.end());
  try {
    const LoadedJob loaded = parse_job(parts.front(), "job", flags, options);
    const std::string written = to_text(loaded.job);
    FUZZ_EXPECT(to_text(parse_job(written, "again", {}, options).job) == written);
    FUZZ_EXPECT(!loaded.where("parallel.outer").empty());
  } catch (const ConfigError& refusal) {
    const std::string text = refusal.what();
    FUZZ_EXPECT(!text.empty() && text.front() != '\n' && text.back() != '\n');
  }
}

}  // namespace
}  // namespace sprocket::config

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size >= 2) sprocket::config::load(data, size);
  return 0;
}

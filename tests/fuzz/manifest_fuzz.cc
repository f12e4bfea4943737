// Any text is read as a manifest or refused with InputError, also one whose closing line is right.
#include <xxhash.h>

#include <algorithm>
#include <string>

#include "base/error.h"
#include "runtime/checkpoint/manifest.h"
#include "tests/fuzz/expect.h"

namespace sprocket::runtime {
namespace {

void read(const std::string& text) {
  try {
    std::vector<ManifestEntry> entries = parse_manifest(text, "fuzz");
    const std::string written = manifest_text(entries);
    std::sort(entries.begin(), entries.end(),
              [](const auto& a, const auto& b) { return a.file < b.file; });
    FUZZ_EXPECT(parse_manifest(written, "again") == entries);
  } catch (const InputError&) {
  }
}

}  // namespace
}  // namespace sprocket::runtime

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  sprocket::runtime::read(text);
  const auto entries = std::count(text.begin(), text.end(), '\n') - 1;
  sprocket::runtime::read(text + fmt::format("end {} {:016x}\n", entries, XXH3_64bits(data, size)));
  return 0;
}

// Any text is read as a data set's index or refused with InputError. What is read is written as
// text that reads the same.
#include <string>

#include "base/error.h"
#include "runtime/data/index.h"
#include "tests/fuzz/expect.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sprocket::data;
  try {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const std::string written = index_text(parse_index(text, "fuzz"));
    FUZZ_EXPECT(index_text(parse_index(written, "again")) == written);
  } catch (const sprocket::InputError&) {
  }
  return 0;
}

// Any text is read as a checkpoint's state or refused with InputError.
#include <string>

#include "base/error.h"
#include "runtime/checkpoint/state_text.h"
#include "tests/fuzz/expect.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sprocket::runtime;
  try {
    const std::string text(reinterpret_cast<const char*>(data), size);
    FUZZ_EXPECT(parse_state(text, "fuzz").schema() == kCheckpointSchema);
  } catch (const sprocket::InputError&) {
  }
  return 0;
}

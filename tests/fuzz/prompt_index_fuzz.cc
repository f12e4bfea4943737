// libFuzzer target: any text is read as a prompt set's index or refused with InputError.
#include <string>

#include "base/error.h"
#include "runtime/data/prompt_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const auto index = sprocket::data::parse_prompt_index(text, "fuzz");
    sprocket::data::parse_prompt_index(sprocket::data::prompt_index_text(index), "again");
  } catch (const sprocket::InputError&) {
  }
  return 0;
}

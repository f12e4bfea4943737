// libFuzzer target: any bytes are parsed or refused with InputError, and what is parsed covers the
// file exactly. Run: build with clang, then `bin/safetensors_fuzz -max_total_time=60`.
#include <cstdlib>

#include "base/error.h"
#include "models/safetensors/header.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto header = sprocket::safetensors::parse_header(
        {reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    uint64_t end = header.data_begin;
    for (const auto& tensor : header.tensors) {
      if (header.data_begin + tensor.offset != end) std::abort();
      end += tensor.bytes;
    }
    if (end != size) std::abort();
  } catch (const sprocket::InputError&) {
  }
  return 0;
}

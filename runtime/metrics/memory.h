#pragma once

#include <cstdint>

namespace sprocket::runtime {

// Largest resident memory of this process so far. Ranks that are threads of one process share it.
int64_t peak_memory_bytes();

}  // namespace sprocket::runtime

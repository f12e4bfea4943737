#include "runtime/metrics/memory.h"

#include <sys/resource.h>

namespace sprocket::runtime {

int64_t peak_memory_bytes() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace sprocket::runtime

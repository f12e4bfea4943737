#include "runtime/metrics/memory.h"

#include <malloc.h>
#include <sys/resource.h>

#include <fstream>
#include <string>

#include "parallel/device/device_memory.h"

namespace sprocket::runtime {
namespace {

// A field of /proc/self/status that is given in kB.
int64_t status_bytes(const std::string& field) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(field + ":")) return std::stoll(line.substr(field.size() + 1)) * 1024;
  }
  return 0;
}

}  // namespace

int64_t peak_memory_bytes(const at::Device& device) {
  if (!device.is_cpu()) return parallel::device_memory(device).peak_reserved;
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

MemoryGrowth::MemoryGrowth() {
  malloc_trim(0);
  std::ofstream clear("/proc/self/clear_refs");
  reset_ = static_cast<bool>(clear << "5" << std::flush);
  anonymous_at_start_ = status_bytes("RssAnon");
}

std::optional<int64_t> MemoryGrowth::peak_bytes() const {
  if (!reset_) return std::nullopt;
  return status_bytes("VmHWM") - status_bytes("RssFile") - status_bytes("RssShmem") -
         anonymous_at_start_;
}

}  // namespace sprocket::runtime

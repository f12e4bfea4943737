#include "tests/cuda_simulator/memory.h"

#include <sys/mman.h>

#include <cstring>
#include <iterator>

#include "tests/cuda_simulator/error.h"

namespace sprocket::cuda_simulator {
namespace {

constexpr uint64_t kAlign = 512;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kGap = 512;  // behind each allocation, so that overruns do not hit the next

uint64_t footprint(uint64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign + kGap; }

void* reserve(void* where, int flags, int protection) {
  void* result = mmap(where, kGlobalWindowBytes, protection,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
  if (result == MAP_FAILED || (where && result != where)) {
    throw DeviceError(Fault::kUnsupported, "cannot reserve the range of device addresses");
  }
  return result;
}

}  // namespace

DeviceMemory::DeviceMemory() {
  // Nothing of the host may lie at device addresses, and the host may not read them.
  reserve(reinterpret_cast<void*>(kGlobalWindow), MAP_FIXED_NOREPLACE, PROT_NONE);
  mirror_ = static_cast<std::byte*>(reserve(nullptr, 0, PROT_READ | PROT_WRITE));
}

DeviceMemory::~DeviceMemory() {
  munmap(reinterpret_cast<void*>(kGlobalWindow), kGlobalWindowBytes);
  munmap(mirror_, kGlobalWindowBytes);
}

uint64_t DeviceMemory::allocate(uint64_t bytes) {
  const uint64_t need = footprint(bytes);
  if (need < bytes || need > kGlobalWindow + kGlobalWindowBytes - next_) return 0;
  const uint64_t address = next_;
  next_ += need;
  allocations_[address] = bytes;
  used_ += bytes;
  std::memset(mirror_ + (address - kGlobalWindow), 0xff, bytes);
  return address;
}

bool DeviceMemory::free(uint64_t address) {
  const auto found = allocations_.find(address);
  if (found == allocations_.end()) return false;
  const uint64_t bytes = found->second;
  const uint64_t first = (address - kGlobalWindow + kPage - 1) / kPage * kPage;
  const uint64_t last = (address - kGlobalWindow + bytes) / kPage * kPage;
  if (last > first) madvise(mirror_ + first, last - first, MADV_DONTNEED);
  used_ -= bytes;
  allocations_.erase(found);
  begin_ = kGlobalWindow;
  size_ = 0;
  return true;
}

void DeviceMemory::free_all() {
  while (!allocations_.empty()) free(allocations_.begin()->first);
}

bool DeviceMemory::select(uint64_t address, uint64_t bytes) {
  auto found = allocations_.upper_bound(address);
  if (found == allocations_.begin()) return false;
  --found;
  if (address - found->first > found->second || bytes > found->second - (address - found->first)) {
    return false;
  }
  begin_ = found->first;
  size_ = found->second;
  return true;
}

std::string DeviceMemory::describe(uint64_t address) const {
  const auto above = allocations_.upper_bound(address);
  std::string result;
  if (above != allocations_.begin()) {
    const auto [begin, bytes] = *std::prev(above);
    result = address < begin + bytes ? fmt::format("{} bytes into an allocation of {} at {:#x}",
                                                   address - begin, bytes, begin)
                                     : fmt::format("{} bytes behind an allocation of {} at {:#x}",
                                                   address - begin - bytes, bytes, begin);
  }
  if (above != allocations_.end()) {
    result +=
        fmt::format("{}{} bytes before an allocation of {} at {:#x}", result.empty() ? "" : ", ",
                    above->first - address, above->second, above->first);
  }
  return result.empty() ? "nothing is allocated" : result;
}

}  // namespace sprocket::cuda_simulator

// Device memory: allocations with exact bounds in an address range that the host cannot touch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace sprocket::cuda_simulator {

// Windows of generic addresses. A shared address is an offset in the CTA's own memory, or
// (1 + rank of a CTA in the cluster) << 24 | offset in that one's.
constexpr uint64_t kGlobalWindow = 0x0000700000000000;
constexpr uint64_t kGlobalWindowBytes = uint64_t{64} << 30;
constexpr uint64_t kSharedWindow = 0x00007a0000000000;
constexpr uint64_t kLocalWindow = 0x00007b0000000000;
constexpr uint64_t kParamWindow = 0x00007c0000000000;
constexpr uint64_t kSpecialWindowBytes = uint64_t{1} << 32;
constexpr int kSharedRankShift = 24;

// One for the process. Not thread-safe: the runtime has one lock.
class DeviceMemory {
 public:
  DeviceMemory();
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // The address of a new allocation, aligned to 512 and filled with 0xff (NaN), or 0 when the
  // window is used up: addresses are not used again, so that a use after free is found.
  uint64_t allocate(uint64_t bytes);
  // Returns false if `address` is no allocation.
  bool free(uint64_t address);
  void free_all();
  // Where the host finds [address, address + bytes); nullptr unless one allocation holds all of it.
  std::byte* find(uint64_t address, uint64_t bytes) {
    if (address - begin_ > size_ || bytes > size_ - (address - begin_)) {
      if (!select(address, bytes)) return nullptr;
    }
    return mirror_ + (address - kGlobalWindow);
  }
  // For messages: what lies at or near an address.
  std::string describe(uint64_t address) const;
  static bool is_device_address(uint64_t address) {
    return address - kGlobalWindow < kGlobalWindowBytes;
  }
  uint64_t used() const { return used_; }

 private:
  bool select(uint64_t address, uint64_t bytes);
  std::byte* mirror_;
  std::map<uint64_t, uint64_t> allocations_;  // address to bytes
  uint64_t next_ = kGlobalWindow + 512;
  uint64_t used_ = 0;
  // The allocation of the last access.
  uint64_t begin_ = kGlobalWindow, size_ = 0;
};

}  // namespace sprocket::cuda_simulator

#include "kernels/aligned_buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <new>

namespace sprocket::kernels::internal {
namespace {

constexpr size_t kSmall = size_t{64} << 10;  // below, malloc keeps the pages itself
constexpr size_t kHugePage = size_t{2} << 20;

class ScratchStore {
 public:
  // A region of at most twice the size, or none.
  ScratchRegion take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto found = regions_.lower_bound(bytes);
    if (found == regions_.end() || found->first > 2 * bytes) return {};
    const ScratchRegion region{found->second, found->first};
    regions_.erase(found);
    kept_ -= region.bytes;
    return region;
  }

  bool keep(ScratchRegion region) {
    const std::lock_guard lock(mutex_);
    if (kept_ + region.bytes > kScratchKept) return false;
    regions_.emplace(region.bytes, region.data);
    kept_ += region.bytes;
    return true;
  }

 private:
  std::mutex mutex_;
  std::multimap<size_t, void*> regions_;
  size_t kept_ = 0;
};

// Never destroyed: a thread may give back memory while the program's statics are being torn down.
ScratchStore& store() {
  static ScratchStore& store = *new ScratchStore;
  return store;
}

}  // namespace

ScratchRegion take_scratch(size_t bytes) {
  if (bytes >= kSmall) {
    if (const ScratchRegion kept = store().take(bytes); kept.data != nullptr) return kept;
  }
  const bool large = bytes >= 2 * kHugePage;
  const size_t unit = large ? kHugePage : 64;
  const size_t rounded = (bytes + unit - 1) / unit * unit;
  void* const data = std::aligned_alloc(unit, rounded);
  if (data == nullptr) throw std::bad_alloc();
  // Tiles are read in an order that only a table knows: with small pages each costs translations.
  // Where the system refuses, nothing but time is lost.
  if (large) madvise(data, rounded, MADV_HUGEPAGE);
  return {data, rounded};
}

void give_back_scratch(ScratchRegion region) {
  if (region.data == nullptr) return;
  if (region.bytes >= kSmall && store().keep(region)) return;
  std::free(region.data);
}

}  // namespace sprocket::kernels::internal

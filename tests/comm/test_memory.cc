#include "tests/comm/test_memory.h"

#include <new>

namespace sprocket::comm::testing {
namespace {

class HostMemory : public TestMemory {
 public:
  StreamView stream() const override { return StreamView::host(); }
  void* allocate(size_t bytes) override { return ::operator new(bytes); }
  void release(void* memory) noexcept override { ::operator delete(memory); }
  void write(void* memory, const void* from, size_t bytes) override {
    std::memcpy(memory, from, bytes);
  }
  void read(void* to, const void* memory, size_t bytes) override { std::memcpy(to, memory, bytes); }
  bool reduces(DType) const override { return true; }
  bool reduces_in_rank_order() const override { return true; }
  bool knows_its_peers() const override { return true; }
};

}  // namespace

TestMemory& host_memory() {
  static HostMemory memory;
  return memory;
}

}  // namespace sprocket::comm::testing

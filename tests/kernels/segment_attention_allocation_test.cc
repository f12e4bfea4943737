// The kernel allocates nothing while it runs. This file counts the program's calls of operator new.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/kernels/segment_attention_fixture.h"

namespace {
std::atomic<int64_t> allocations = 0;

void* counted(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  void* const data = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (data == nullptr) throw std::bad_alloc();
  return data;
}
}  // namespace

void* operator new(std::size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
void* operator new[](std::size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<std::size_t>(alignment));
}
// As std::stable_sort asks for its buffer.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return counted(bytes, alignof(std::max_align_t));
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return counted(bytes, alignof(std::max_align_t));
}
void operator delete(void* data, const std::nothrow_t&) noexcept { std::free(data); }
void operator delete[](void* data, const std::nothrow_t&) noexcept { std::free(data); }
void operator delete(void* data) noexcept { std::free(data); }
void operator delete[](void* data) noexcept { std::free(data); }
void operator delete(void* data, std::size_t) noexcept { std::free(data); }
void operator delete[](void* data, std::size_t) noexcept { std::free(data); }
void operator delete(void* data, std::align_val_t) noexcept { std::free(data); }
void operator delete[](void* data, std::align_val_t) noexcept { std::free(data); }
void operator delete(void* data, std::size_t, std::align_val_t) noexcept { std::free(data); }
void operator delete[](void* data, std::size_t, std::align_val_t) noexcept { std::free(data); }

namespace sprocket::kernels {
namespace {

using testing::Case;

template <class T>
class SegmentAttentionAllocation : public ::testing::Test {};
using Types = ::testing::Types<double, float, BFloat16>;
TYPED_TEST_SUITE(SegmentAttentionAllocation, Types);

TYPED_TEST(SegmentAttentionAllocation, ACallAllocatesNothing) {
  const Case<TypeParam> c({2, 3, 64, {64, 33, 130}, {64, 1, 100, 16}, 0.7});
  auto r = c.zeros();
  const auto kv = c.buffers();
  std::vector<KvGradBuffer<TypeParam>> dkv;
  for (size_t i = 0; i < c.k.size(); ++i) {
    dkv.push_back({c.buffer_view(r.dk[i].data(), i), c.buffer_view(r.dv[i].data(), i)});
  }
  const auto problem = c.problem(kv, c.table, 2);
  std::vector<std::byte> forward(segment_attention_workspace_bytes(problem, Direction::kForward)),
      backward(segment_attention_workspace_bytes(problem, Direction::kBackward));
  const int64_t before = allocations;
  segment_attention_forward<TypeParam>(problem, c.query_view(r.out.data()), r.lse.data(), false,
                                       forward);
  segment_attention_delta<TypeParam>(
      c.query_view(static_cast<const Accumulator<TypeParam>*>(r.out.data())),
      c.query_view(c.dout.data()), 2, c.queries(), 3, 64, r.delta.data(), 2);
  segment_attention_backward<TypeParam>(problem, c.query_view(c.dout.data()), r.lse.data(),
                                        r.delta.data(), c.query_view(r.dq.data()), dkv, backward);
  EXPECT_EQ(allocations, before);
  EXPECT_NE(r.dq, c.zeros().dq);
}

}  // namespace
}  // namespace sprocket::kernels

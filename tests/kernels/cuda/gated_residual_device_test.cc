#include "base/error.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/elementwise.h"
#include "tests/kernels/cuda/element_testing.h"

namespace sprocket::kernels::cuda {
namespace {

struct Sizes {
  int64_t batch, rows, dim;
  int64_t count() const { return batch * rows * dim; }
};
const std::vector<Sizes> kSizes{{2, 70, 64}, {1, 33, 520}, {3, 1, 8}, {2, 0, 16}, {1, 3, 4104}};

struct Problem {
  Sizes s;
  bool gated;
  int64_t stride;  // of the gates: 0 shares one, else rows of a wider table
  Doubles x, y, gate;

  Problem(const Sizes& sizes, bool has_gate, bool shared)
      : s(sizes),
        gated(has_gate),
        stride(shared ? 0 : s.dim + 4),
        x(normal_values(s.count(), 1)),
        y(normal_values(s.count(), 2)),
        gate(normal_values(shared ? s.dim : s.batch * stride, 3)) {}
};

template <class A>
struct Host {
  std::vector<A> sum, dy, dgate;
  explicit Host(const Problem& p)
      : sum(converted<A>(p.x)), dy(p.x.size()), dgate(p.gate.size(), A(9)) {
    const auto dx = sum, y = converted<A>(p.y), gate = converted<A>(p.gate);
    const A* const g = p.gated ? gate.data() : nullptr;
    kernels::add_gated<A>(y.data(), g, p.stride, p.s.batch, p.s.rows, p.s.dim, sum.data(), 1);
    kernels::add_gated_backward<A>(dx.data(), y.data(), g, p.stride, p.s.batch, p.s.rows, p.s.dim,
                                   dy.data(), p.gated ? dgate.data() : nullptr, 1);
  }
};

template <class T>
struct Device {
  std::vector<float> sum, dgate;
  std::vector<HostOf<T>> dy;

  explicit Device(const Problem& p) {
    CudaStream stream;
    Elements<float> sum_array(p.x), dx(p.x), gate(p.gate), dgate_array(Doubles(p.gate.size(), 9));
    Elements<T> y(p.y), dy_array(p.s.count());
    const float* const g = p.gated ? gate.get() : nullptr;
    WorkspaceMemory workspace(
        p.gated ? add_gated_backward_workspace_bytes(p.s.batch, p.s.rows, p.s.dim) : 0);
    add_gated<T>(y.get(), g, p.stride, p.s.batch, p.s.rows, p.s.dim, sum_array.get(),
                 stream.view());
    add_gated_backward<T>(dx.get(), p.gated ? y.get() : nullptr, g, p.stride, p.s.batch, p.s.rows,
                          p.s.dim, dy_array.get(), p.gated ? dgate_array.get() : nullptr,
                          workspace.view(), stream.view());
    sum = sum_array.download();
    dy = dy_array.download();
    dgate = dgate_array.download();
  }
};

template <class T>
class GatedResidualDeviceTest : public testing::Test {};
TYPED_TEST_SUITE(GatedResidualDeviceTest, DeviceElements);

TYPED_TEST(GatedResidualDeviceTest, IsAsAccurateAsTheHost) {
  for (const Sizes& s : kSizes) {
    for (const bool gated : {false, true}) {
      for (const bool shared : {false, true}) {
        SCOPED_TRACE(testing::Message() << s.batch << " x " << s.rows << " x " << s.dim
                                        << (gated ? ", gated" : "") << (shared ? ", shared" : ""));
        const Problem p(s, gated, shared);
        const Device<TypeParam> found(p);
        const Host<double> exact(p);
        const Host<float> reference(p);
        expect_as_accurate(converted<double>(found.sum), converted<double>(reference.sum),
                           exact.sum);
        expect_as_accurate(converted<double>(found.dy), stored<TypeParam>(reference.dy), exact.dy);
        expect_as_accurate(converted<double>(found.dgate), converted<double>(reference.dgate),
                           exact.dgate);
      }
    }
  }
}

TYPED_TEST(GatedResidualDeviceTest, TwoRunsAreBitwiseEqual) {
  const Problem p({2, 70, 520}, true, true);
  const Device<TypeParam> one(p), two(p);
  EXPECT_TRUE(same_bits(one.sum, two.sum));
  EXPECT_TRUE(same_bits(one.dy, two.dy));
  EXPECT_TRUE(same_bits(one.dgate, two.dgate));
}

// 1,200 rows are more partial sums than the second stage has slices.
TEST(GatedResidualDeviceTest, SumsOverManyRows) {
  const Problem p({1, 1200, 8}, true, false);
  expect_as_accurate(converted<double>(Device<float>(p).dgate),
                     converted<double>(Host<float>(p).dgate), Host<double>(p).dgate);
}

TEST(GatedResidualDeviceTest, RefusesWhatItCannotDo) {
  CudaStream stream;
  Elements<float> memory(normal_values(64, 1));
  float* const data = memory.get();
  EXPECT_THROW(add_gated<float>(data, nullptr, 0, 1, 1, 12, data, stream.view()), ConfigError);
  EXPECT_THROW(add_gated<float>(data, data, 6, 2, 1, 8, data, stream.view()), InternalError);
  EXPECT_THROW(
      add_gated_backward<float>(data, data, data, 8, 1, 1, 8, data, data, {}, stream.view()),
      InternalError);
}

}  // namespace
}  // namespace sprocket::kernels::cuda

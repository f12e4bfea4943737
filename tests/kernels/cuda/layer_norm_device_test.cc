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
// One warp and several, idle threads at the end of a row, the largest row, several chunks of a sum
// with a remainder, no rows.
const std::vector<Sizes> kSizes{{2, 70, 64}, {1, 33, 520}, {3, 1, 8}, {2, 0, 16}, {1, 2, 8192}};

struct Problem {
  Sizes s;
  bool shared;
  int64_t stride;  // of the samples' vectors: rows of a wider table
  Doubles x, scale, shift, dy, dx;

  Problem(const Sizes& sizes, bool shared_vectors)
      : s(sizes),
        shared(shared_vectors),
        stride(shared ? 0 : s.dim + 8),
        x(normal_values(s.count(), 1)),
        scale(normal_values(vector_count(), 2)),
        shift(normal_values(vector_count(), 3)),
        dy(normal_values(s.count(), 4)),
        dx(normal_values(s.count(), 5)) {
    for (double& value : x) value = value + 2;
    x = converted<double>(converted<float>(x));
  }
  int64_t vector_count() const { return shared ? s.dim : s.batch * stride; }
  double base() const { return shared ? 0 : 1; }
};

template <class A>
struct Host {
  std::vector<A> y, dx, dscale, dshift;
  explicit Host(const Problem& p)
      : y(p.x.size()),
        dx(converted<A>(p.dx)),
        dscale(p.scale.size(), A(9)),
        dshift(p.scale.size(), A(9)) {
    const auto x = converted<A>(p.x), scale = converted<A>(p.scale), shift = converted<A>(p.shift),
               dy = converted<A>(p.dy);
    const RowAffine<A> affine{scale.data(), shift.data(), p.stride, p.base()};
    kernels::layer_norm<A>(x.data(), affine, p.s.batch, p.s.rows, p.s.dim, 1e-6, y.data(), 1);
    kernels::layer_norm_backward<A>(dy.data(), x.data(), affine, p.s.batch, p.s.rows, p.s.dim, 1e-6,
                                    dx.data(), dscale.data(), dshift.data(), 1);
  }
};

template <class T>
struct Device {
  std::vector<HostOf<T>> y;
  std::vector<float> dx, dscale, dshift;

  explicit Device(const Problem& p) {
    CudaStream stream;
    const Doubles nines(p.scale.size(), 9);
    Elements<float> x(p.x), scale(p.scale), shift(p.shift), dx_array(p.dx), dscale_array(nines),
        dshift_array(nines);
    Elements<T> y_array(p.s.count()), dy(p.dy);
    WorkspaceMemory workspace(layer_norm_backward_workspace_bytes(p.s.batch, p.s.rows, p.s.dim));
    const RowAffine<float> affine{scale.get(), shift.get(), p.stride, p.base()};
    layer_norm<T>(x.get(), affine, p.s.batch, p.s.rows, p.s.dim, 1e-6, y_array.get(),
                  stream.view());
    layer_norm_backward<T>(dy.get(), x.get(), affine, p.s.batch, p.s.rows, p.s.dim, 1e-6,
                           dx_array.get(), dscale_array.get(), dshift_array.get(), workspace.view(),
                           stream.view());
    y = y_array.download();
    dx = dx_array.download();
    dscale = dscale_array.download();
    dshift = dshift_array.download();
  }
};

template <class T>
class LayerNormDeviceTest : public testing::Test {};
TYPED_TEST_SUITE(LayerNormDeviceTest, DeviceElements);

TYPED_TEST(LayerNormDeviceTest, IsAsAccurateAsTheHost) {
  for (const Sizes& s : kSizes) {
    for (const bool shared : {false, true}) {
      SCOPED_TRACE(testing::Message()
                   << s.batch << " x " << s.rows << " x " << s.dim << (shared ? ", shared" : ""));
      const Problem p(s, shared);
      const Device<TypeParam> found(p);
      const Host<double> exact(p);
      const Host<float> reference(p);
      expect_as_accurate(converted<double>(found.y), stored<TypeParam>(reference.y), exact.y);
      expect_as_accurate(converted<double>(found.dx), converted<double>(reference.dx), exact.dx);
      expect_as_accurate(converted<double>(found.dscale), converted<double>(reference.dscale),
                         exact.dscale);
      expect_as_accurate(converted<double>(found.dshift), converted<double>(reference.dshift),
                         exact.dshift);
    }
  }
}

TYPED_TEST(LayerNormDeviceTest, TwoRunsAreBitwiseEqual) {
  const Problem p({2, 70, 520}, false);
  const Device<TypeParam> one(p), two(p);
  EXPECT_TRUE(same_bits(one.y, two.y));
  EXPECT_TRUE(same_bits(one.dx, two.dx));
  EXPECT_TRUE(same_bits(one.dscale, two.dscale));
  EXPECT_TRUE(same_bits(one.dshift, two.dshift));
}

TEST(LayerNormDeviceTest, ALargeMeanCostsNoMoreThanOnTheHost) {
  Problem p({1, 5, 64}, true);
  for (double& value : p.x) value += 1000;
  p.x = converted<double>(converted<float>(p.x));
  const Device<float> found(p);
  expect_as_accurate(converted<double>(found.y), stored<float>(Host<float>(p).y),
                     Host<double>(p).y);
}

TEST(LayerNormDeviceTest, RefusesWhatItCannotDo) {
  CudaStream stream;
  Elements<float> memory(normal_values(64, 1));
  float* const data = memory.get();
  const RowAffine<float> affine{data, data, 0, 0};
  for (const int64_t dim : {0, 4, 12, 8200}) {
    EXPECT_THROW(layer_norm<float>(data, affine, 1, 1, dim, 1e-6, data, stream.view()),
                 ConfigError);
  }
  EXPECT_THROW(layer_norm<float>(data + 1, affine, 1, 1, 8, 1e-6, data, stream.view()),
               InternalError);
  EXPECT_THROW(layer_norm<float>(data, {data, data, 6, 1}, 2, 1, 8, 1e-6, data, stream.view()),
               InternalError);
  EXPECT_THROW(layer_norm<float>(data, affine, 1, 1, 8, 1e-6, data, StreamView::host()),
               InternalError);
  const int64_t needed = layer_norm_backward_workspace_bytes(1, 1, 8);
  EXPECT_THROW(layer_norm_backward<float>(data, data, affine, 1, 1, 8, 1e-6, data, data, data,
                                          {data, needed - 1}, stream.view()),
               InternalError);
}

}  // namespace
}  // namespace sprocket::kernels::cuda

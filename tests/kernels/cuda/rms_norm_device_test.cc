#include "base/error.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/elementwise.h"
#include "tests/kernels/cuda/element_testing.h"

namespace sprocket::kernels::cuda {
namespace {

struct Sizes {
  int64_t batch, rows, dim, head_dim;  // head_dim 0: no rotation
  int64_t count() const { return batch * rows * dim; }
};
const std::vector<Sizes> kSizes{{2, 70, 64, 16}, {2, 35, 64, 64},   {1, 33, 520, 104}, {3, 1, 8, 0},
                                {2, 0, 16, 8},   {1, 2, 8192, 128}, {1, 6, 1536, 128}};

struct Problem {
  Sizes s;
  Doubles x, weight, cos, sin, dy;

  explicit Problem(const Sizes& sizes)
      : s(sizes),
        x(normal_values(s.count(), 1)),
        weight(normal_values(s.dim, 2)),
        cos(s.rows * s.head_dim / 2),
        sin(s.rows * s.head_dim / 2),
        dy(normal_values(s.count(), 4)) {
    for (size_t i = 0; i < cos.size(); ++i) {
      cos[i] = static_cast<float>(std::cos(0.37 * static_cast<double>(i)));
      sin[i] = static_cast<float>(std::sin(0.37 * static_cast<double>(i)));
    }
  }
};

template <class A>
struct Host {
  std::vector<A> y, dx, dweight;
  explicit Host(const Problem& p) : y(p.x.size()), dx(p.x.size()), dweight(p.weight.size(), A(9)) {
    const auto x = converted<A>(p.x), weight = converted<A>(p.weight), cos = converted<A>(p.cos),
               sin = converted<A>(p.sin), dy = converted<A>(p.dy);
    const Rotation<A> rotation =
        p.s.head_dim == 0 ? Rotation<A>{} : Rotation<A>{cos.data(), sin.data(), p.s.head_dim};
    kernels::rms_norm_rotate<A>(x.data(), weight.data(), rotation, p.s.batch, p.s.rows, p.s.dim,
                                1e-6, y.data(), 1);
    kernels::rms_norm_rotate_backward<A>(dy.data(), x.data(), weight.data(), rotation, p.s.batch,
                                         p.s.rows, p.s.dim, 1e-6, dx.data(), dweight.data(), 1);
  }
};

template <class T>
struct Device {
  std::vector<HostOf<T>> y, dx;
  std::vector<float> dweight;

  Device(const Problem& p, bool in_place) {
    CudaStream stream;
    Elements<T> x(p.x), dy(p.dy), y_array(p.s.count()), dx_array(p.s.count());
    Elements<float> weight(p.weight), cos(p.cos), sin(p.sin),
        dweight_array(Doubles(p.weight.size(), 9));
    WorkspaceMemory workspace(
        rms_norm_rotate_backward_workspace_bytes(p.s.batch, p.s.rows, p.s.dim));
    const Rotation<float> rotation =
        p.s.head_dim == 0 ? Rotation<float>{} : Rotation<float>{cos.get(), sin.get(), p.s.head_dim};
    Elements<T>& dx_to = in_place ? dy : dx_array;
    rms_norm_rotate_backward<T>(dy.get(), x.get(), weight.get(), rotation, p.s.batch, p.s.rows,
                                p.s.dim, 1e-6, dx_to.get(), dweight_array.get(), workspace.view(),
                                stream.view());
    Elements<T>& y_to = in_place ? x : y_array;
    rms_norm_rotate<T>(x.get(), weight.get(), rotation, p.s.batch, p.s.rows, p.s.dim, 1e-6,
                       y_to.get(), stream.view());
    y = y_to.download();
    dx = dx_to.download();
    dweight = dweight_array.download();
  }
};

template <class T>
class RmsNormDeviceTest : public testing::Test {};
TYPED_TEST_SUITE(RmsNormDeviceTest, DeviceElements);

TYPED_TEST(RmsNormDeviceTest, IsAsAccurateAsTheHost) {
  for (const Sizes& s : kSizes) {
    SCOPED_TRACE(testing::Message()
                 << s.batch << " x " << s.rows << " x " << s.dim << ", heads of " << s.head_dim);
    const Problem p(s);
    const Device<TypeParam> found(p, false);
    const Host<double> exact(p);
    const Host<float> reference(p);
    expect_as_accurate(converted<double>(found.y), stored<TypeParam>(reference.y), exact.y);
    expect_as_accurate(converted<double>(found.dx), stored<TypeParam>(reference.dx), exact.dx);
    expect_as_accurate(converted<double>(found.dweight), converted<double>(reference.dweight),
                       exact.dweight);
  }
}

TYPED_TEST(RmsNormDeviceTest, InPlaceAndTwiceAreBitwiseTheSame) {
  const Problem p({2, 70, 520, 40});
  const Device<TypeParam> one(p, false), two(p, true);
  EXPECT_TRUE(same_bits(one.y, two.y));
  EXPECT_TRUE(same_bits(one.dx, two.dx));
  EXPECT_TRUE(same_bits(one.dweight, two.dweight));
}

TEST(RmsNormDeviceTest, RefusesHeadsThatItCannotRotate) {
  CudaStream stream;
  Elements<float> memory(normal_values(64, 1));
  float* const data = memory.get();
  for (const int64_t head_dim : {0, 4, 12, 48}) {
    EXPECT_THROW(rms_norm_rotate<float>(data, data, {data, data, head_dim}, 1, 1, 64, 1e-6, data,
                                        stream.view()),
                 ConfigError);
  }
  EXPECT_THROW(
      rms_norm_rotate<float>(data, data, {data, nullptr, 8}, 1, 1, 64, 1e-6, data, stream.view()),
      InternalError);
  EXPECT_THROW(rms_norm_rotate<float>(data, data, {}, 1, 1, 60, 1e-6, data, stream.view()),
               ConfigError);
}

}  // namespace
}  // namespace sprocket::kernels::cuda

#include "kernels/branch_combine.h"

#include "base/error.h"
#include "kernels/cuda/branch_combine.h"
#include "tests/kernels/cuda/element_testing.h"

namespace sprocket::kernels::cuda {
namespace {

// Ragged blocks, an empty one; more octets of heads than one block of threads has.
struct Case {
  int batch, heads, head_dim;
  std::vector<int64_t> offsets;
  bool fine_gate, coarse_gate, coarse;

  int64_t rows() const { return offsets.back(); }
  int blocks() const { return static_cast<int>(offsets.size()) - 1; }
  int64_t row_stride() const { return (heads + 1) * head_dim; }  // of a wider tensor
  int64_t view_size() const { return batch * rows() * row_stride(); }
  int64_t coarse_size() const { return static_cast<int64_t>(batch) * heads * blocks() * head_dim; }
  template <class T>
  HeadView<T> view(T* data) const {
    return {data, rows() * row_stride(), row_stride(), head_dim};
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const bool fine_gate : {false, true}) {
    for (const bool coarse_gate : {false, true}) {
      for (const bool coarse : {false, true}) {
        all.push_back({2, 3, 16, {0, 3, 3, 20, 21}, fine_gate, coarse_gate, coarse});
      }
    }
  }
  all.push_back({1, 9, 128, {0, 64, 70}, true, true, true});
  all.push_back({1, 2, 8, {0}, true, true, true});
  return all;
}

struct Inputs {
  Doubles fine, fine_gate, coarse, coarse_gate, dout;
  explicit Inputs(const Case& c)
      : fine(normal_values(c.view_size(), 1)),
        fine_gate(normal_values(c.view_size(), 2)),
        coarse(normal_values(c.coarse_size(), 3)),
        coarse_gate(normal_values(c.view_size(), 4)),
        dout(normal_values(c.view_size(), 5)) {}
};

// The parts of the views that no head owns keep their 9.
template <class A>
struct Host {
  std::vector<A> out, dcoarse, dcoarse_gate, dfine_gate, dfine;
  explicit Host(const Case& c)
      : out(c.view_size(), A(9)),
        dcoarse(c.coarse_size(), A(9)),
        dcoarse_gate(c.view_size(), A(9)),
        dfine_gate(c.view_size(), A(9)),
        dfine(c.view_size(), A(9)) {
    const Inputs in(c);
    const auto fine = converted<A>(in.fine), fine_gate = converted<A>(in.fine_gate),
               coarse = converted<A>(in.coarse), coarse_gate = converted<A>(in.coarse_gate),
               dout = converted<A>(in.dout);
    kernels::Branches<A> x;
    x.fine = c.view(fine.data());
    if (c.fine_gate) x.fine_gate = c.view(fine_gate.data());
    if (c.coarse) x.coarse = coarse.data();
    if (c.coarse && c.coarse_gate) x.coarse_gate = c.view(coarse_gate.data());
    x.offsets = c.offsets;
    x.batch = c.batch;
    x.heads = c.heads;
    x.head_dim = c.head_dim;
    kernels::combine_branches<A>(x, c.view(out.data()));
    kernels::BranchGradients<A> to;
    if (c.coarse) to.dcoarse = dcoarse.data();
    if (c.coarse && c.coarse_gate) to.dcoarse_gate = c.view(dcoarse_gate.data());
    if (c.fine_gate) to.dfine_gate = c.view(dfine_gate.data());
    to.dfine = c.view(dfine.data());
    kernels::combine_branches_backward<A>(x, c.view(dout.data()), to);
  }
};

template <class T>
struct Device {
  std::vector<HostOf<T>> out, dcoarse_gate, dfine_gate, dfine;
  std::vector<float> dcoarse;

  explicit Device(const Case& c) {
    CudaStream stream;
    const Inputs in(c);
    const Doubles nines(c.view_size(), 9);
    Elements<float> fine(in.fine), coarse(in.coarse), to_coarse(Doubles(c.coarse_size(), 9));
    Elements<T> fine_gate(in.fine_gate), coarse_gate(in.coarse_gate), dout(in.dout), to_out(nines),
        to_coarse_gate(nines), to_fine_gate(nines), to_fine(nines);
    DeviceArray<int64_t> offsets(c.offsets);
    Branches<T> x;
    x.fine = c.view<const float>(fine.get());
    if (c.fine_gate) x.fine_gate = c.view<const T>(fine_gate.get());
    if (c.coarse) x.coarse = coarse.get();
    if (c.coarse && c.coarse_gate) x.coarse_gate = c.view<const T>(coarse_gate.get());
    x.offsets = offsets.get();
    x.blocks = c.blocks();
    x.batch = c.batch;
    x.heads = c.heads;
    x.head_dim = c.head_dim;
    combine_branches<T>(x, c.view(to_out.get()), stream.view());
    BranchGradients<T> to;
    if (c.coarse) to.dcoarse = to_coarse.get();
    if (c.coarse && c.coarse_gate) to.dcoarse_gate = c.view(to_coarse_gate.get());
    if (c.fine_gate) to.dfine_gate = c.view(to_fine_gate.get());
    to.dfine = c.view(to_fine.get());
    combine_branches_backward<T>(x, c.view<const T>(dout.get()), to, stream.view());
    out = to_out.download();
    dcoarse_gate = to_coarse_gate.download();
    dfine_gate = to_fine_gate.download();
    dfine = to_fine.download();
    dcoarse = to_coarse.download();
  }
};

template <class T>
class BranchCombineDeviceTest : public testing::Test {};
TYPED_TEST_SUITE(BranchCombineDeviceTest, DeviceElements);

TYPED_TEST(BranchCombineDeviceTest, IsAsAccurateAsTheHost) {
  using T = TypeParam;
  for (const Case& c : cases()) {
    SCOPED_TRACE(testing::Message() << c.blocks() << " blocks, gates " << c.fine_gate
                                    << c.coarse_gate << ", coarse " << c.coarse);
    const Device<T> found(c), again(c);
    const Host<double> exact(c);
    const Host<float> reference(c);
    expect_as_accurate(converted<double>(found.out), stored<T>(reference.out), exact.out);
    expect_as_accurate(converted<double>(found.dcoarse), converted<double>(reference.dcoarse),
                       exact.dcoarse);
    expect_as_accurate(converted<double>(found.dcoarse_gate), stored<T>(reference.dcoarse_gate),
                       exact.dcoarse_gate);
    expect_as_accurate(converted<double>(found.dfine_gate), stored<T>(reference.dfine_gate),
                       exact.dfine_gate);
    expect_as_accurate(converted<double>(found.dfine), stored<T>(reference.dfine), exact.dfine);
    EXPECT_TRUE(same_bits(found.out, again.out));
    EXPECT_TRUE(same_bits(found.dcoarse, again.dcoarse));
  }
}

TEST(BranchCombineDeviceTest, RefusesWhatItCannotDo) {
  CudaStream stream;
  Elements<float> memory(normal_values(64, 1));
  Branches<float> x;
  x.fine = {memory.get(), 0, 16, 8};
  x.batch = x.heads = x.blocks = 1;
  x.head_dim = 12;
  EXPECT_THROW(combine_branches<float>(x, {memory.get(), 0, 16, 8}, stream.view()), ConfigError);
  x.head_dim = 8;
  EXPECT_THROW(combine_branches<float>(x, {memory.get(), 0, 15, 8}, stream.view()), InternalError);
}

}  // namespace
}  // namespace sprocket::kernels::cuda

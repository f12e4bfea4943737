#include "kernels/cuda/row_pack.h"

#include "base/error.h"
#include "kernels/row_runs.h"
#include "tests/kernels/cuda/element_testing.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kBatch = 2, kHeads = 3, kRows = 300, kDim = 24;
constexpr int64_t kStride = (kHeads + 1) * kDim;  // rows of a wider tensor

// Runs of no rows, of one, of more than one block of threads takes, next to each other and apart;
// the message has gaps.
std::vector<RowRun> runs() {
  return {{0, 0, 0, 1, 5},     {0, 0, 1, 64, 6},    {0, 1, 0, 0, 70},    {0, 2, 100, 200, 70},
          {1, 0, 299, 1, 270}, {1, 1, 17, 65, 275}, {1, 2, 60, 130, 340}};
}
constexpr int64_t kPackedRows = 480;

template <class T>
HeadView<T> view(T* data) {
  return {data, kRows * kStride, kStride, kDim};
}

template <class T>
class RowPackDeviceTest : public testing::Test {};
TYPED_TEST_SUITE(RowPackDeviceTest, DeviceElements);

DeviceRowRuns on_device(DeviceArray<RowRun>& array) { return {array.get(), array.size(), 200}; }

TYPED_TEST(RowPackDeviceTest, MovesTheRowsOfItsRunsAndNothingElse) {
  using T = TypeParam;
  CudaStream stream;
  const Doubles x = normal_values(kBatch * kRows * kStride, 1);
  Elements<T> tensor(x), packed(Doubles(kPackedRows * kDim, 9.0));
  DeviceArray<RowRun> run_array(runs());
  pack_rows<T>(view<const T>(tensor.get()), on_device(run_array), kDim, packed.get(),
               stream.view());
  Doubles expected(kPackedRows * kDim, 9.0);
  kernels::pack_rows<double>(view<const double>(x.data()), runs(), kDim, expected.data(), 1);
  EXPECT_EQ(packed.doubles(), expected);
}

// The host's arithmetic, element for element: equal.
TYPED_TEST(RowPackDeviceTest, AddsPackedRowsAsTheHost) {
  using T = TypeParam;
  CudaStream stream;
  const Doubles message = normal_values(kPackedRows * kDim, 2);
  const Doubles before = normal_values(kBatch * kRows * kStride, 3);
  Elements<T> packed(message);
  Elements<float> sums(before);
  DeviceArray<RowRun> run_array(runs());
  auto expected = converted<float>(before);
  const auto values = converted<float>(message);
  for (int peer = 0; peer < 2; ++peer) {
    add_packed_rows<T>(packed.get(), on_device(run_array), kDim, view(sums.get()), stream.view());
    kernels::add_packed_rows<float>(values.data(), runs(), kDim, view(expected.data()), 1);
  }
  EXPECT_TRUE(same_bits(sums.download(), expected));
}

TYPED_TEST(RowPackDeviceTest, NoRunsAreNoWork) {
  using T = TypeParam;
  CudaStream stream;
  Elements<T> memory(Doubles(kDim, 9.0));
  pack_rows<T>({memory.get(), 0, kDim, kDim}, {}, kDim, memory.get(), stream.view());
  EXPECT_EQ(memory.doubles(), Doubles(kDim, 9.0));
}

TEST(RowPackDeviceTest, RefusesWhatItCannotDo) {
  CudaStream stream;
  Elements<float> memory(Doubles(64, 9.0));
  DeviceArray<RowRun> run_array(std::vector<RowRun>{{0, 0, 0, 1, 0}});
  const DeviceRowRuns one{run_array.get(), 1, 1};
  float* const data = memory.get();
  EXPECT_THROW(pack_rows<float>({data, 0, 12, 12}, one, 12, data + 32, stream.view()), ConfigError);
  EXPECT_THROW(pack_rows<float>({data, 0, 9, 8}, one, 8, data + 32, stream.view()), InternalError);
  EXPECT_THROW(add_packed_rows<float>(data + 1, one, 8, {data, 0, 8, 8}, stream.view()),
               InternalError);
}

}  // namespace
}  // namespace sprocket::kernels::cuda

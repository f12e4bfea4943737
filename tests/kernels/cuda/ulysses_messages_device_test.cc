#include "kernels/cuda/ulysses_messages.h"

#include <numeric>

#include "base/error.h"
#include "tests/kernels/cuda/element_testing.h"

namespace sprocket::kernels::cuda {
namespace {

template <class T>
class UlyssesMessagesDeviceTest : public testing::Test {};
TYPED_TEST_SUITE(UlyssesMessagesDeviceTest, DeviceElements);

struct HeadCase {
  int members, heads, all_heads, batch;
  int64_t rows;
  std::vector<int32_t> order;
};

// One group of all heads, the second of two groups, heads in any order, one member, no rows.
const std::vector<HeadCase> kHeadCases{{2, 3, 6, 2, 37, {0, 1, 2, 3, 4, 5}},
                                       {3, 1, 6, 1, 16, {1, 3, 5}},
                                       {2, 2, 5, 2, 20, {4, 0, 3, 1}},
                                       {1, 2, 2, 1, 5, {1, 0}},
                                       {2, 1, 2, 1, 0, {0, 1}}};
constexpr int kDim = 16;
constexpr int64_t kTensors = 2, kTensor = 1;  // the second of two in every message

TYPED_TEST(UlyssesMessagesDeviceTest, HeadsGoToTheirPlacesAndBack) {
  using T = TypeParam;
  CudaStream stream;
  for (const HeadCase& c : kHeadCases) {
    const int64_t row_stride = (c.all_heads + 1) * kDim, size = c.batch * c.rows * row_stride;
    const int64_t part = c.batch * c.rows * c.heads * kDim, stride = kTensors * part;
    const Doubles x = normal_values(size, 1);
    Elements<T> tensor(x), messages(Doubles(c.members * stride, 9.0)), back(Doubles(size, 9.0));
    DeviceArray<int32_t> order(c.order);
    const HeadMessages layout{c.members, c.batch, c.rows, c.heads, kDim, order.get(), stride};
    pack_heads<T>({tensor.get(), c.rows * row_stride, row_stride, kDim}, layout,
                  messages.get() + kTensor * part, stream.view());
    unpack_heads<T>(messages.get() + kTensor * part, layout,
                    {back.get(), c.rows * row_stride, row_stride, kDim}, stream.view());
    Doubles expected(c.members * stride, 9.0), expected_back(size, 9.0);
    for (int m = 0; m < c.members; ++m) {
      for (int64_t row = 0; row < c.batch * c.rows; ++row) {
        for (int place = 0; place < c.heads; ++place) {
          for (int d = 0; d < kDim; ++d) {
            const int64_t at = row * row_stride + c.order[m * c.heads + place] * kDim + d;
            expected[m * stride + kTensor * part + (row * c.heads + place) * kDim + d] = x[at];
            expected_back[at] = x[at];
          }
        }
      }
    }
    EXPECT_EQ(messages.doubles(), expected);
    EXPECT_EQ(back.doubles(), expected_back);
  }
}

// Uneven members, empty ones first, in the middle and last; more rows than a block of threads has.
TYPED_TEST(UlyssesMessagesDeviceTest, RowsGoToTheirMembersAndBack) {
  using T = TypeParam;
  CudaStream stream;
  const int heads = 3, width = heads * kDim;
  for (const auto& rows : {std::vector<int64_t>{20, 7, 33}, std::vector<int64_t>{0, 5, 0, 18, 0},
                           std::vector<int64_t>{4}, std::vector<int64_t>{0, 0}}) {
    for (const int batch : {1, 3}) {
      std::vector<int64_t> first_row{0};
      for (const int64_t r : rows) first_row.push_back(first_row.back() + r);
      const int64_t all = first_row.back(), size = batch * all * width;
      Elements<T> messages(Doubles(kTensors * size, 9.0));
      DeviceArray<int64_t> starts(first_row);
      Doubles expected(kTensors * size, 9.0);
      for (int t = 0; t < kTensors; ++t) {
        const Doubles x = normal_values(size, 1 + t);
        Elements<T> tensor(x), back(Doubles(size, 9.0));
        const RowMessages layout{
            static_cast<int>(rows.size()), kTensors, t, batch, all, heads, kDim, starts.get()};
        pack_member_rows<T>(tensor.get(), layout, messages.get(), stream.view());
        unpack_member_rows<T>(messages.get(), layout, back.get(), stream.view());
        EXPECT_EQ(back.doubles(), x);
        int64_t message = 0;
        for (size_t m = 0; m < rows.size(); ++m) {
          for (int b = 0; b < batch; ++b) {
            for (int64_t i = 0; i < rows[m] * width; ++i) {
              expected[message + (t * batch + b) * rows[m] * width + i] =
                  x[(b * all + first_row[m]) * width + i];
            }
          }
          message += kTensors * batch * rows[m] * width;
        }
      }
      EXPECT_EQ(messages.doubles(), expected);
    }
  }
}

TEST(UlyssesMessagesDeviceTest, RefusesWhatItCannotDo) {
  CudaStream stream;
  Elements<float> memory(Doubles(64, 9.0));
  DeviceArray<int32_t> order(std::vector<int32_t>{0});
  float* const data = memory.get();
  const HeadView<const float> x{data, 8, 8, 8};
  EXPECT_THROW(pack_heads<float>(x, {1, 1, 1, 1, 12, order.get(), 16}, data, stream.view()),
               ConfigError);
  EXPECT_THROW(pack_heads<float>(x, {1, 1, 1, 1, 8, order.get(), 9}, data, stream.view()),
               InternalError);
  EXPECT_THROW(pack_heads<float>(x, {1, 1, 1, 1, 8, order.get(), 8}, data + 2, stream.view()),
               InternalError);
}

}  // namespace
}  // namespace sprocket::kernels::cuda

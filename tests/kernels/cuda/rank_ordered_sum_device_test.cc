#include "kernels/cuda/rank_ordered_sum.h"

#include <memory>

#include "base/error.h"
#include "tests/kernels/cuda/element_testing.h"

namespace sprocket::kernels::cuda {
namespace {

template <class T>
class RankOrderedSumDeviceTest : public testing::Test {};
TYPED_TEST_SUITE(RankOrderedSumDeviceTest, DeviceElements);

// Equal to the sum from left to right in float with one rounding at the end.
TYPED_TEST(RankOrderedSumDeviceTest, HasTheBitsOfTheOrderOfRanks) {
  using T = TypeParam;
  using H = HostOf<T>;
  CudaStream stream;
  for (const int ranks : {1, 2, 3, 7, 8}) {
    for (const int64_t count : {0, 1, 8, 13, 2048, 2500}) {
      std::vector<std::unique_ptr<Elements<T>>> sources;
      std::vector<const T*> pointers;
      std::vector<float> sum(count);
      for (int rank = 0; rank < ranks; ++rank) {
        const Doubles values = normal_values(count, rank);
        sources.push_back(std::make_unique<Elements<T>>(values));
        pointers.push_back(sources.back()->get());
        for (int64_t i = 0; i < count; ++i) {
          sum[i] =
              rank == 0 ? static_cast<float>(values[i]) : sum[i] + static_cast<float>(values[i]);
        }
      }
      DeviceArray<const T*> table(pointers);
      Elements<T> out(count);
      sum_in_rank_order<T>(table.get(), ranks, count, out.get(), stream.view());
      EXPECT_TRUE(same_bits(out.download(), converted<H>(sum))) << ranks << " x " << count;
      Elements<T>& last = *sources.back();  // one of the sources as the output
      sum_in_rank_order<T>(table.get(), ranks, count, last.get(), stream.view());
      EXPECT_TRUE(same_bits(last.download(), converted<H>(sum))) << ranks << " x " << count;
    }
  }
}

TEST(RankOrderedSumDeviceTest, RefusesNoRanks) {
  CudaStream stream;
  Elements<float> out(8);
  EXPECT_THROW(sum_in_rank_order<float>(nullptr, 0, 8, out.get(), stream.view()), InternalError);
}

}  // namespace
}  // namespace sprocket::kernels::cuda

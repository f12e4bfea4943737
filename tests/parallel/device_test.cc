// Which device a rank takes, what the host tells a device of tables, and builds without CUDA.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ops/zeros.h>

#include "base/error.h"
#include "parallel/attention/device_query.h"
#include "parallel/comm/thread_backend.h"
#include "parallel/device/device_ordinal.h"
#include "parallel/device/host_copy.h"
#include "parallel/device/tensor_device.h"
#include "parallel/mesh.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(DeviceOrdinal, EveryRankOfAHostHasItsOwn) {
  for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(device_ordinal(rank, 4, 8, 1), rank);
}

TEST(DeviceOrdinal, NeighboursShareWhenAsked) {
  const int expected[] = {0, 0, 0, 1, 1};
  for (int rank = 0; rank < 5; ++rank) EXPECT_EQ(device_ordinal(rank, 5, 2, 3), expected[rank]);
}

TEST(DeviceOrdinal, MoreRanksThanDevicesAreRefused) {
  EXPECT_THAT([] { device_ordinal(0, 4, 2, 1); },
              ThrowsMessage<ConfigError>(HasSubstr(
                  "with 4 ranks on this host and compute.ranks_per_device: 1 needs 4 devices, "
                  "found 2; legal: at most 2 ranks on this host, or ranks_per_device: 2 or more")));
  // All ranks of the host are refused, not the last ones alone.
  EXPECT_THROW(device_ordinal(0, 5, 2, 2), ConfigError);
}

TEST(DeviceOrdinal, NoDeviceIsSaidAsSuch) {
  EXPECT_THAT([] { device_ordinal(0, 1, 0, 1); },
              ThrowsMessage<CudaError>(HasSubstr("sees no CUDA device")));
}

TEST(TensorDevice, OnTheProcessorNothingIsTaken) {
  const TensorDevice device;
  EXPECT_TRUE(device.device().is_cpu());
  EXPECT_TRUE(current_stream(at::kCPU).is_host());
  EXPECT_TRUE(stream_of(at::zeros({2})).is_host());
}

TEST(Mesh, OnTheProcessorTensorsAndTheHostShareTheirCommunicators) {
  auto world = comm::make_thread_world(1, {});
  const Mesh mesh(std::move(world.front()), {});
  EXPECT_EQ(&mesh.tensors(), &mesh.host());
  EXPECT_EQ(&mesh.outer().host, &mesh.outer().tensors);
}

TEST(DeviceQuery, BoundsAreThoseOfTheTable) {
  const kernels::SegmentTable table{1, 1, 3, 4, {0, 1, 4, 6}, {2, 0, 1, 3, 1, 2}};
  EXPECT_EQ(longest_row(table), 3);
  EXPECT_EQ(longest_row(kernels::SegmentTable{1, 1, 0, 0, {0}, {}}), 0);
  EXPECT_EQ(longest_block({0, 64, 65, 193, 193}), 128);
  EXPECT_EQ(longest_block(std::vector<int64_t>{0}), 0);
  const kernels::KvBlockMap map{3, false, {{0, 5, 0, 0}, {1, 64, 5, 0}, {}}};
  EXPECT_EQ(longest_block(map), 64);
  EXPECT_EQ(longest_block(kernels::KvBlockMap{}), 0);
}

TEST(DeviceQuery, CountsBeyond31BitsAreRefused) {
  EXPECT_THAT(narrowed({0, 7, 2147483647}), ElementsAre(0, 7, 2147483647));
  EXPECT_THROW(narrowed({0, int64_t{1} << 31}), InternalError);
}

TEST(HostCopy, KeepsTheBytes) {
  const std::vector<int32_t> values = {1, -2, 3};
  const at::Tensor copied = ints_on(values, at::kCPU);
  ASSERT_EQ(copied.numel(), 3);
  EXPECT_EQ(copied.scalar_type(), at::kInt);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(copied.data_ptr<int32_t>()[i], values[i]);
  EXPECT_EQ(ints_on({}, at::kCPU).numel(), 0);
}

}  // namespace
}  // namespace sprocket::parallel

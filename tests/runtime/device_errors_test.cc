// What LibTorch says of a device reaches the user as an error of CUDA, from every rank.
#include <gmock/gmock.h>

#include "base/exit_code.h"
#include "runtime/jobs/device_errors.h"
#include "runtime/jobs/rank_agreement.h"
#include "tests/runtime/thread_ranks.h"

namespace sprocket::runtime {
namespace {

using ::testing::HasSubstr;

const c10::SourceLocation kHere{"allocate", "allocator.cpp", 7};

TEST(DeviceErrors, OutOfMemorySaysWhatTakesLess) {
  testing::run_ranks(2, [](std::unique_ptr<comm::Communicator> world) {
    try {
      run_on_all(*world, [&] {
        if (world->rank() == 1) {
          throw c10::OutOfMemoryError(kHere, "CUDA out of memory. Tried to allocate 2.00 GiB.");
        }
      });
      FAIL() << "expected an error on rank " << world->rank();
    } catch (const CudaError& error) {
      EXPECT_THAT(error.what(), HasSubstr("CUDA out of memory. Tried to allocate 2.00 GiB."));
      EXPECT_THAT(error.what(), HasSubstr("training.activation_checkpointing: BLOCK"));
      EXPECT_EQ(exit_code_of(error), ExitCode::kCuda);
    }
  });
}

TEST(DeviceErrors, FailuresOfTheDeviceKeepTheirText) {
  const auto fail = [] { throw c10::AcceleratorError(kHere, 700, "an illegal memory access"); };
  try {
    with_device_errors(fail);
    FAIL() << "expected an error";
  } catch (const CudaError& error) {
    EXPECT_THAT(error.what(), HasSubstr("an illegal memory access"));
  }
}

TEST(DeviceErrors, OthersPass) {
  EXPECT_THROW(with_device_errors([] { throw InputError("a file"); }), InputError);
  EXPECT_EQ(with_device_errors([] { return 3; }), 3);
}

}  // namespace
}  // namespace sprocket::runtime

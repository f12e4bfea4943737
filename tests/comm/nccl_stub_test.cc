#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "parallel/comm/fake_backend.h"
#include "parallel/comm/nccl_backend.h"

namespace sprocket::comm {
namespace {

TEST(NcclInABuildWithoutCuda, SaysHowToGetIt) {
  try {
    make_nccl_communicator(make_fake_world(0, 1), {}, {});
    ADD_FAILURE() << "expected a ConfigError";
  } catch (const ConfigError& error) {
    EXPECT_THAT(
        std::string(error.what()),
        ::testing::AllOf(::testing::HasSubstr("this build has no CUDA"),
                         ::testing::HasSubstr("-DSPROCKET_CUDA=ON"), ::testing::HasSubstr("MPI")));
  }
}

}  // namespace
}  // namespace sprocket::comm

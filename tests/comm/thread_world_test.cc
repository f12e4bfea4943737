// The common bodies over threads.
#include <gtest/gtest.h>

#include "tests/comm/communicator_bodies.h"
#include "tests/comm/thread_ranks.h"

namespace sprocket::comm::testing {
namespace {

class ThreadWorld : public ::testing::TestWithParam<int> {};

TEST_P(ThreadWorld, EveryBody) {
  for (const auto& body : communicator_bodies()) {
    SCOPED_TRACE(body.name);
    run_ranks(GetParam(), body.run);
  }
}

INSTANTIATE_TEST_SUITE_P(Worlds, ThreadWorld, ::testing::Values(1, 2, 3, 4, 5, 7, 8));

class ThreadAborts : public ::testing::TestWithParam<int> {};

TEST_P(ThreadAborts, EveryAbortingBody) {
  for (const auto& body : aborting_bodies()) {
    SCOPED_TRACE(body.name);
    run_ranks(GetParam(), body.run, body.timeout);
  }
}

INSTANTIATE_TEST_SUITE_P(Worlds, ThreadAborts, ::testing::Values(2, 3, 5));

}  // namespace
}  // namespace sprocket::comm::testing

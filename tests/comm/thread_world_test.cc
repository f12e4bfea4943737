// The common bodies over threads, plain and behind the Checked decorator.
#include <gtest/gtest.h>

#include "parallel/comm/checked_backend.h"
#include "parallel/comm/thread_backend.h"
#include "tests/comm/checked_bodies.h"
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

TEST_P(ThreadWorld, KnowsWhoCameLast) { run_ranks(GetParam(), the_last_peer_is_known); }

INSTANTIATE_TEST_SUITE_P(Worlds, ThreadWorld, ::testing::Values(1, 2, 3, 4, 5, 7, 8));

class ThreadAborts : public ::testing::TestWithParam<int> {};

TEST_P(ThreadAborts, EveryAbortingBody) {
  for (const auto& body : aborting_bodies()) {
    SCOPED_TRACE(body.name);
    run_ranks(GetParam(), body.run, body.timeout);
  }
}

INSTANTIATE_TEST_SUITE_P(Worlds, ThreadAborts, ::testing::Values(2, 3, 5));

std::vector<std::unique_ptr<Communicator>> checked_world(int size,
                                                         std::chrono::milliseconds patience) {
  std::vector<std::unique_ptr<Communicator>> world;
  CommunicatorOptions options;
  options.timeout = std::chrono::seconds(60);
  for (auto& backend : make_thread_backends(size, "world")) {
    world.push_back(std::make_unique<Communicator>(
        make_checked_backend(std::move(backend), patience), "world", options));
  }
  return world;
}

class CheckedWorld : public ::testing::TestWithParam<int> {};

TEST_P(CheckedWorld, AgreesWithEveryBody) {
  for (const auto& body : communicator_bodies()) {
    SCOPED_TRACE(body.name);
    run_ranks(checked_world(GetParam(), std::chrono::seconds(60)), body.run);
  }
}

class DivergingWorld : public ::testing::TestWithParam<int> {};

TEST_P(DivergingWorld, NamesTheRank) {
  for (const auto& body : diverging_bodies()) {
    SCOPED_TRACE(body.name);
    run_ranks(checked_world(GetParam(), body.patience), body.run);
  }
}

INSTANTIATE_TEST_SUITE_P(Worlds, CheckedWorld, ::testing::Values(1, 2, 3, 5));
INSTANTIATE_TEST_SUITE_P(Worlds, DivergingWorld, ::testing::Values(2, 3, 5));

}  // namespace
}  // namespace sprocket::comm::testing

// The common bodies over Open MPI; every rank runs every test.
#include <gtest/gtest.h>
#include <mpi.h>

#include "base/error.h"
#include "parallel/comm/checked_backend.h"
#include "parallel/comm/mpi_backend.h"
#include "parallel/comm/recorder.h"
#include "tests/comm/checked_bodies.h"
#include "tests/comm/communicator_bodies.h"

namespace sprocket::comm::testing {
namespace {

CommunicatorOptions options(std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
  CommunicatorOptions options;
  options.timeout = timeout;
  return options;
}

TEST(MpiWorld, IsTheJob) {
  int rank = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const auto world = make_mpi_world(options());
  EXPECT_EQ(world->rank(), rank);
  EXPECT_EQ(world->size(), size);
}

TEST(MpiWorld, EveryBody) {
  const auto world = make_mpi_world(options());
  for (const auto& body : communicator_bodies()) {
    SCOPED_TRACE(body.name);
    body.run(*world);
    ASSERT_FALSE(HasFatalFailure());
  }
}

TEST(MpiWorld, KnowsWhoCameLast) { the_last_peer_is_known(*make_mpi_world(options())); }

// Counts above those of an MPI call are cut; the cut is made short here.
TEST(MpiWorld, CutsLongMessages) {
  const auto world = make_mpi_world(options(), {.max_message_bytes = 7});
  for (const auto& body : communicator_bodies()) {
    if (body.name == "LargeExchange") continue;
    SCOPED_TRACE(body.name);
    body.run(*world);
    ASSERT_FALSE(HasFatalFailure());
  }
}

TEST(MpiWorld, EveryAbortingBody) {
  const auto control = make_mpi_world(options());
  for (const auto& body : aborting_bodies()) {
    SCOPED_TRACE(body.name);
    control->barrier();
    body.run(*make_mpi_world(options(body.timeout)));
    ASSERT_FALSE(HasFatalFailure());
  }
  control->barrier();
}

std::unique_ptr<Communicator> checked_world(std::chrono::milliseconds patience) {
  return std::make_unique<Communicator>(make_checked_backend(make_mpi_backend(), patience), "world",
                                        options());
}

TEST(MpiWorld, CheckedAgreesWithEveryBody) {
  const auto world = checked_world(std::chrono::seconds(60));
  for (const auto& body : communicator_bodies()) {
    SCOPED_TRACE(body.name);
    body.run(*world);
    ASSERT_FALSE(HasFatalFailure());
  }
}

TEST(MpiWorld, CheckedNamesTheDivergingRank) {
  const auto control = make_mpi_world(options());
  for (const auto& body : diverging_bodies()) {
    SCOPED_TRACE(body.name);
    control->barrier();
    body.run(*checked_world(body.patience));
    ASSERT_FALSE(HasFatalFailure());
  }
  control->barrier();
}

// Messages of an operation never match those of another one, whatever MPI still holds of it.
TEST(MpiWorld, StrayMessagesDoNotMatch) {
  const auto control = make_mpi_world(options());
  const auto world = make_mpi_world(options());
  const int n = world->size(), next = (world->rank() + 1) % n, last = (world->rank() + n - 1) % n;
  std::vector<int32_t> first{1}, second{2}, got_first{0}, got_second{0};
  const Segment to{next, 0, 1}, from{last, 0, 1};
  const auto buffer = [](std::vector<int32_t>& v) { return Buffer::of(std::span<int32_t>(v)); };
  Work a = world->exchange(buffer(first), {&to, 1}, {}, {});
  Work b = world->exchange(buffer(second), {&to, 1}, {}, {});
  // The receives are posted by later operations: other sequence numbers, so nothing arrives there.
  Work c = world->exchange({}, {}, buffer(got_first), {&from, 1});
  for (int i = 0; i < 1000; ++i) EXPECT_FALSE(c.done());
  EXPECT_EQ(got_first[0], 0);
  control->barrier();
  world->abort("nobody sends this");
  EXPECT_THROW(c.wait_host(), CommError);
}

}  // namespace
}  // namespace sprocket::comm::testing

// The common bodies through the Nccl backend, over a stand-in for devices and NCCL.
#include <gtest/gtest.h>

#include "parallel/comm/nccl_backend.h"
#include "parallel/comm/recorder.h"
#include "tests/comm/communicator_bodies.h"
#include "tests/comm/nccl_over_threads.h"
#include "tests/comm/thread_ranks.h"

namespace sprocket::comm::testing {
namespace {

using namespace std::chrono_literals;

std::unique_ptr<Communicator> make_world(Communicator& host, const NcclLibraries& libraries,
                                         std::chrono::milliseconds timeout) {
  CommunicatorOptions options;
  options.timeout = timeout;
  return std::make_unique<Communicator>(
      make_nccl_backend(libraries, host.split(0, host.rank(), "world"), {}), "world", options);
}

class NcclOverThreads : public ::testing::TestWithParam<int> {};
class NcclOverThreadsAborts : public ::testing::TestWithParam<int> {};

TEST_P(NcclOverThreads, EveryBody) {
  ThreadDevices devices;
  run_ranks(GetParam(), [&](Communicator& host) {
    const auto [libraries, memory] = devices.make_rank();
    const auto world = make_world(host, libraries, 60s);
    for (const auto& body : communicator_bodies(*memory)) {
      SCOPED_TRACE(body.name);
      body.run(*world);
      if (::testing::Test::HasFatalFailure()) return;
    }
  });
}

// A rank that comes late is in the time of those that wait for it, though their hosts do not.
TEST(NcclLatePeers, AreInTheTimeOfAnOperation) {
  ThreadDevices devices;
  OpRecord records[2];
  run_ranks(2, [&](Communicator& host) {
    const auto [libraries, memory] = devices.make_rank();
    const auto world = make_world(host, libraries, 60s);
    Values<float> values(*memory, 10, 1.0f);
    const bool late = host.rank() == 1;
    if (late) host.barrier();
    const int64_t sequence = world->recorder().next_sequence();
    Work work = world->all_reduce(values.buffer(), ReduceOp::kSum, memory->stream());
    if (!late) {
      for (int i = 0; i < 100; ++i) EXPECT_FALSE(work.done());
      host.barrier();
    }
    work.wait(memory->stream());
    work = Work();
    EXPECT_EQ(world->recorder().since(sequence).front().state, OpState::kStarted);
    EXPECT_EQ(values.read()[9], 2.0f);
    world->progress();
    records[host.rank()] = world->recorder().since(sequence).front();
    host.barrier();
  });
  for (const OpRecord& record : records) EXPECT_EQ(record.state, OpState::kCompleted);
  EXPECT_LT(records[0].start_ns, records[1].enqueue_ns);
  EXPECT_GE(records[0].end_ns, records[1].start_ns);
}

TEST_P(NcclOverThreadsAborts, EveryAbortingBody) {
  ThreadDevices devices;
  run_ranks(GetParam(), [&](Communicator& host) {
    const auto [libraries, memory] = devices.make_rank();
    for (const auto& body : aborting_bodies(*memory)) {
      SCOPED_TRACE(body.name);
      host.barrier();
      body.run(*make_world(host, libraries, body.timeout));
      if (::testing::Test::HasFatalFailure()) return;
    }
    host.barrier();
  });
}

INSTANTIATE_TEST_SUITE_P(Worlds, NcclOverThreads, ::testing::Values(1, 2, 3, 5));
INSTANTIATE_TEST_SUITE_P(Worlds, NcclOverThreadsAborts, ::testing::Values(2, 5));

}  // namespace
}  // namespace sprocket::comm::testing

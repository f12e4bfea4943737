// The report of a rank whose device works later than its host.
#include <gtest/gtest.h>

#include "parallel/comm/nccl_backend.h"
#include "runtime/recording/step_collector.h"
#include "tests/base/scripted_stream.h"
#include "tests/comm/nccl_over_threads.h"
#include "tests/runtime/thread_ranks.h"

namespace sprocket::runtime {
namespace {

TEST(DeviceProfile, AStepHasTheComputeThatItEnqueued) {
  sprocket::testing::run_ranks(1, [](std::unique_ptr<comm::Communicator> world) {
    const parallel::Mesh mesh(std::move(world), {1, 1, 1});
    sprocket::testing::ScriptedStream stream;
    Timeline& timeline = *mesh.timeline();
    timeline.measure_by(stream.moments());
    StepCollector collector(mesh, 0);
    const auto compute = [&](const char* name, int64_t ns) {
      const Timeline::Scope scope(&timeline, Activity::kCompute, name);
      stream.work(ns);
    };
    const int64_t work[] = {700, 50, 3};
    for (int step = 0; step < 3; ++step) {
      collector.begin_step();
      const int64_t settled = stream.settled;
      for (int micro = 0; micro < 2; ++micro) {
        compute("work", work[step]);
        collector.collect({});
      }
      EXPECT_EQ(stream.settled, settled) << "nothing waits inside a step";
      collector.end_step();
      EXPECT_EQ(stream.settled, settled + 1);
      ASSERT_EQ(collector.intervals().size(), 2u);
      for (const Interval& interval : collector.intervals()) {
        EXPECT_STREQ(interval.name, "work");
        EXPECT_EQ(interval.end_ns - interval.begin_ns, work[step]);
      }
      compute("validation", 10'000);
    }
    timeline.measure_by(nullptr);
  });
}

// No host waits for them, and when a micro-batch ends they are still under way.
TEST(DeviceProfile, OperationsThatOnlyAStreamWaitsForAreCountedAndTimed) {
  comm::testing::ThreadDevices devices;
  sprocket::testing::run_ranks(2, [&](std::unique_ptr<comm::Communicator> host) {
    const auto [libraries, memory] = devices.make_rank();
    Timeline& timeline = *host->options().timeline;
    const comm::CommunicatorOptions options = host->options();
    auto world = std::make_unique<comm::Communicator>(
        comm::make_nccl_backend(libraries, std::move(host), {}), "world", options);
    const parallel::Mesh mesh(std::move(world), {1, 2, 1});
    {
      comm::testing::Values<float> values(*memory, 10, 1.0f);
      sprocket::testing::ScriptedStream stream;
      stream.finish = [&] { values.read(); };
      timeline.measure_by(stream.moments());
      StepCollector collector(mesh, 0);
      const PhaseScope phase(&timeline, Phase::kForward);
      for (int step = 0; step < 3; ++step) {
        collector.begin_step();
        for (int micro = 0; micro < 2; ++micro) {
          for (int i = 0; i < 2; ++i) {
            mesh.tensors()
                .outer()
                .all_reduce(values.buffer(), comm::ReduceOp::kMax, memory->stream())
                .wait(memory->stream());
          }
          collector.collect({});
        }
        const profile::StepParts times = collector.end_step();
        EXPECT_GT(times.communication_ns, 0);
        EXPECT_LE(times.communication_ns, times.wall_ns);
      }
      EXPECT_EQ(collector.lost_records(), 0);
      std::vector<comm::OpRecord> sums;
      for (const auto& [group, record] : collector.operations()) {
        if (record.op == comm::OpKind::kAllReduce) sums.push_back(record);
      }
      ASSERT_EQ(sums.size(), 4u);
      for (size_t i = 0; i < sums.size(); ++i) {
        EXPECT_EQ(sums[i].sequence, static_cast<int64_t>(8 + i)) << "after the former steps'";
        EXPECT_EQ(sums[i].state, comm::OpState::kCompleted);
        EXPECT_GE(sums[i].end_ns, sums[i].start_ns);
        EXPECT_LE(sums[i].end_ns, collector.span().end);
      }
      timeline.measure_by(nullptr);
    }
  });
}

}  // namespace
}  // namespace sprocket::runtime

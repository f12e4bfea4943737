// The report of a rank whose device works later than its host.
#include <gtest/gtest.h>

#include "parallel/comm/nccl_backend.h"
#include "runtime/profile/step_collector.h"
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
      collector.end_step(60, step > 0);
      EXPECT_EQ(stream.settled, settled + 1);
      EXPECT_EQ(collector.profile().compute_by_name_ns.count("work"), step > 0);
      compute("validation", 10'000);
    }
    EXPECT_EQ(collector.profile().compute_by_name_ns,
              (std::map<std::string, int64_t>{{"work", 2 * (50 + 3)}}));
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
        const StepTimes times = collector.end_step(60, step > 0);
        EXPECT_GT(times.communication_ns, 0);
        EXPECT_LE(times.communication_ns, times.wall_ns);
      }
      const RankProfile& p = collector.profile();
      EXPECT_EQ(p.lost_records, 0);
      const OpKey key{"sp.outer", comm::OpKind::kAllReduce, Phase::kForward};
      EXPECT_EQ(p.operations.at(key).operations, 8);
      EXPECT_GT(p.operations.at(key).duration_ns, 0);
      ASSERT_EQ(p.timings.size(), 8u);
      for (size_t i = 0; i < p.timings.size(); ++i) {
        EXPECT_EQ(p.timings[i].sequence, static_cast<int64_t>(4 + i)) << "after the first step's";
        EXPECT_GE(p.timings[i].duration_ns, 0);
        EXPECT_LE(p.timings[i].duration_ns, p.wall_ns);
      }
      timeline.measure_by(nullptr);
    }
  });
}

}  // namespace
}  // namespace sprocket::runtime

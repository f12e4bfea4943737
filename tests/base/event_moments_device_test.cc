// Moments of a CUDA stream and their times on the host's clock.
#include "base/event_moments.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"
#include "base/timeline.h"

namespace sprocket {
namespace {

constexpr int64_t kResolutionNs = 1000;  // twice CUDA's own

class EventMomentsTest : public ::testing::Test {
 protected:
  EventMomentsTest() { check_cuda(cudaMalloc(&memory_, kBytes), "cudaMalloc"); }
  ~EventMomentsTest() override { cudaFree(memory_); }

  static cudaStream_t native(const CudaStream& stream) {
    return static_cast<cudaStream_t>(stream.view().cuda_handle());
  }
  void work(const CudaStream& stream) {
    check_cuda(cudaMemsetAsync(memory_, 1, kBytes, native(stream)), "cudaMemsetAsync");
  }
  static int64_t slack_ns() { return CudaClock::of_device(0).uncertainty_ns() + kResolutionNs; }

  static constexpr size_t kBytes = size_t{8} << 20;
  void* memory_ = nullptr;
  const CudaStream stream_;
};

TEST_F(EventMomentsTest, TimesAreTheHosts) {
  EventMoments moments(stream_.view());
  for (int round = 0; round < 3; ++round) {
    const int64_t before = monotonic_ns();
    const int64_t begin = moments.note();
    work(stream_);
    const int64_t end = moments.note();
    check_cuda(cudaStreamSynchronize(native(stream_)), "cudaStreamSynchronize");
    const int64_t after = monotonic_ns();
    const int64_t slack = slack_ns();  // of the clock that these are taken by
    moments.settle();
    EXPECT_GE(moments.time_of(begin), before - slack);
    EXPECT_LT(moments.time_of(begin), moments.time_of(end));
    EXPECT_LE(moments.time_of(end), after + slack);
    moments.forget_before(end);
  }
}

// The report intersects what different streams did.
TEST_F(EventMomentsTest, StreamsShareAClock) {
  const CudaStream other;
  EventMoments here(stream_.view()), there(other.view());
  work(stream_);
  const int64_t first = here.note();
  check_cuda(cudaStreamSynchronize(native(stream_)), "cudaStreamSynchronize");
  const int64_t second = there.note();
  work(other);
  check_cuda(cudaStreamSynchronize(native(other)), "cudaStreamSynchronize");
  const int64_t third = here.note();
  const int64_t slack = slack_ns();
  here.settle();
  there.settle();
  EXPECT_LE(here.time_of(first), there.time_of(second) + slack + slack_ns());
  EXPECT_LE(there.time_of(second), here.time_of(third) + slack + slack_ns());
}

TEST_F(EventMomentsTest, EventsAreUsedAgain) {
  EventMoments moments(stream_.view());
  int64_t events = 0, last = -1;
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 100; ++i) {
      const int64_t moment = moments.note();
      EXPECT_EQ(moment, last + 1);
      last = moment;
    }
    moments.settle();
    EXPECT_GT(moments.time_of(last), 0);
    moments.forget_before(round % 2 == 0 ? last - 3 : INT64_MAX);
    if (round == 0) events = moments.events();
    EXPECT_EQ(moments.events(), events);
  }
}

// Nobody takes anything, as between steps: what the stream has reached needs no event.
TEST_F(EventMomentsTest, AStreamThatKeepsUpNeedsFewEvents) {
  EventMoments moments(stream_.view());
  std::vector<int64_t> noted;
  for (int i = 0; i < 3000; ++i) {
    noted.push_back(moments.note());
    if (i % 100 == 0) check_cuda(cudaStreamSynchronize(native(stream_)), "cudaStreamSynchronize");
  }
  EXPECT_LE(moments.events(), static_cast<int64_t>(EventMoments::kMostPending) + 100);
  moments.settle();
  for (size_t i = 1; i < noted.size(); ++i) {
    ASSERT_EQ(noted[i], noted[i - 1] + 1);
    ASSERT_LE(moments.time_of(noted[i - 1]), moments.time_of(noted[i]));
  }
  moments.forget_before(noted[1500]);
  EXPECT_THROW(moments.time_of(noted[1499]), InternalError);
  EXPECT_GT(moments.time_of(noted[1500]), 0);
}

TEST_F(EventMomentsTest, ATimelineHasTheDevicesTimes) {
  Timeline timeline;
  timeline.set_recording(true);
  timeline.measure_by(std::make_unique<EventMoments>(stream_.view()));
  const int64_t slack = slack_ns();
  const int64_t before = monotonic_ns();
  for (int step = 0; step < 2; ++step) {
    timeline.position.step = step;
    const Timeline::Scope outer(&timeline, Activity::kCompute, "outer");
    work(stream_);
    {
      const Timeline::Scope inner(&timeline, Activity::kCommunicationWait, "inner");
      work(stream_);
    }
    work(stream_);
  }
  const auto intervals = timeline.take();
  const int64_t after = monotonic_ns();
  ASSERT_EQ(intervals.size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_STREQ(intervals[i].name, i % 3 == 1 ? "inner" : "outer");
    EXPECT_EQ(intervals[i].position.step, static_cast<int64_t>(i / 3));
    EXPECT_LT(intervals[i].begin_ns, intervals[i].end_ns);
    if (i % 3 != 0) {
      EXPECT_EQ(intervals[i].begin_ns, intervals[i - 1].end_ns);
    }
    if (i == 3) {
      EXPECT_GE(intervals[i].begin_ns, intervals[i - 1].end_ns);
    }
  }
  EXPECT_GE(intervals.front().begin_ns, before - slack);
  EXPECT_LE(intervals.back().end_ns, after + slack);
}

// Ranks that share a device share its clock.
TEST_F(EventMomentsTest, AnyThreadMayUseTheClock) {
  const auto rank = [&] {
    check_cuda(cudaSetDevice(0), "cudaSetDevice");
    const CudaStream stream;
    EventMoments moments(stream.view());
    for (int i = 0; i < 50; ++i) {
      const int64_t begin = moments.note(), end = moments.note();
      moments.settle();
      // The other one may have renewed it between the two.
      EXPECT_LE(moments.time_of(begin), moments.time_of(end) + 2 * slack_ns());
      moments.forget_before(INT64_MAX);
    }
  };
  const std::jthread one(rank), two(rank);
}

}  // namespace
}  // namespace sprocket

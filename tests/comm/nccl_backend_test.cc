// The Nccl backend against mocked libraries: order of calls, errors, time-outs, aborts.
#include "parallel/comm/nccl_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "base/timeline.h"
#include "parallel/comm/fake_backend.h"
#include "parallel/comm/recorder.h"
#include "tests/base/scripted_stream.h"
#include "tests/comm/thread_ranks.h"

namespace sprocket::comm {
namespace {

using ::testing::_;
using ::testing::AllOf;
using ::testing::AtLeast;
using ::testing::DoAll;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::InSequence;
using ::testing::NiceMock;
using ::testing::Return;
using ::testing::SaveArg;
using ::testing::SetArgPointee;
using namespace std::chrono_literals;

constexpr int kRemoteError = 6;
constexpr int kCudaLaunchFailure = 719;

class MockNccl : public NcclApi {
 public:
  MockNccl() {
    ON_CALL(*this, comm_init).WillByDefault(DoAll(SetArgPointee<0>(comm()), Return(kNcclSuccess)));
    ON_CALL(*this, comm_get_async_error)
        .WillByDefault(DoAll(SetArgPointee<1>(kNcclSuccess), Return(kNcclSuccess)));
    ON_CALL(*this, error_text).WillByDefault([](int code, Comm) {
      return "nccl code " + std::to_string(code);
    });
  }
  Comm comm() { return this; }
  void report(int state) {
    ON_CALL(*this, comm_get_async_error)
        .WillByDefault(DoAll(SetArgPointee<1>(state), Return(kNcclSuccess)));
  }

  MOCK_METHOD(int, get_unique_id, (NcclUniqueId*), (override));
  MOCK_METHOD(int, comm_init, (Comm*, int, const NcclUniqueId&, int, const NcclCommConfig&),
              (override));
  MOCK_METHOD(int, comm_get_async_error, (Comm, int*), (override));
  MOCK_METHOD(int, comm_finalize, (Comm), (override));
  MOCK_METHOD(int, comm_destroy, (Comm), (override));
  MOCK_METHOD(int, comm_abort, (Comm), (override));
  MOCK_METHOD(int, group_start, (), (override));
  MOCK_METHOD(int, group_end, (), (override));
  MOCK_METHOD(int, send, (const void*, size_t, int, Comm, void*), (override));
  MOCK_METHOD(int, receive, (void*, size_t, int, Comm, void*), (override));
  MOCK_METHOD(int, broadcast, (void*, size_t, int, Comm, void*), (override));
  MOCK_METHOD(int, all_gather, (const void*, void*, size_t, Comm, void*), (override));
  MOCK_METHOD(int, all_reduce, (void*, size_t, DType, ReduceOp, Comm, void*), (override));
  MOCK_METHOD(int, reduce_scatter, (const void*, void*, size_t, DType, Comm, void*), (override));
  MOCK_METHOD(int, reduce, (const void*, void*, size_t, DType, int, Comm, void*), (override));
  MOCK_METHOD(std::string, error_text, (int, Comm), (override));
};

class MockCuda : public CudaApi {
 public:
  MockCuda() {
    ON_CALL(*this, create_stream).WillByDefault(DoAll(SetArgPointee<0>(stream()), Return(0)));
    ON_CALL(*this, create_event).WillByDefault([this](void** event) {
      *event = &events_[created_++ % std::size(events_)];
      return 0;
    });
    ON_CALL(*this, allocate).WillByDefault([](void** memory, size_t bytes) {
      *memory = ::operator new(bytes);
      return 0;
    });
    ON_CALL(*this, release).WillByDefault([](void* memory) {
      ::operator delete(memory);
      return 0;
    });
    ON_CALL(*this, error_text).WillByDefault([](int code) {
      return "cuda code " + std::to_string(code);
    });
    // A device that is done with everything at once.
    ON_CALL(*this, record).WillByDefault([this](void* event, void*) {
      recorded_ns_[event] = monotonic_ns();
      return 0;
    });
    ON_CALL(*this, time_of).WillByDefault([this](void* event, int64_t* ns) {
      *ns = recorded_ns_.at(event);
      return 0;
    });
  }
  void* stream() { return this; }
  void answer_queries(int code) { ON_CALL(*this, query).WillByDefault(Return(code)); }

  MOCK_METHOD(int, set_device, (int), (override));
  MOCK_METHOD(int, create_stream, (void**, StreamPriority), (override));
  MOCK_METHOD(int, destroy_stream, (void*), (override));
  MOCK_METHOD(int, create_event, (void**), (override));
  MOCK_METHOD(int, destroy_event, (void*), (override));
  MOCK_METHOD(int, record, (void*, void*), (override));
  MOCK_METHOD(int, stream_wait, (void*, void*), (override));
  MOCK_METHOD(int, query, (void*), (override));
  MOCK_METHOD(int, time_of, (void*, int64_t*), (override));
  MOCK_METHOD(int, copy, (void*, const void*, size_t, void*), (override));
  MOCK_METHOD(int, allocate, (void**, size_t), (override));
  MOCK_METHOD(int, release, (void*), (override));
  MOCK_METHOD(std::string, error_text, (int), (override));

 private:
  int created_ = 0;
  char events_[64];
  std::map<void*, int64_t> recorded_ns_;
};

class NcclBackendTest : public ::testing::Test {
 protected:
  NcclBackendTest() {
    // As on a device: an abort stops the kernels, and what is queued then counts as done.
    ON_CALL(*nccl, comm_abort).WillByDefault([this](NcclApi::Comm) {
      cuda->answer_queries(kCudaSuccess);
      return kNcclSuccess;
    });
  }

  // Rank 1 of 3; its host communicator is fake.
  std::unique_ptr<Communicator> make() {
    CommunicatorOptions options;
    options.timeout = 50ms;
    return std::make_unique<Communicator>(
        make_nccl_backend({nccl, cuda}, make_fake_world(1, 3), {.device = 2, .timeout = 50ms}),
        "world", options);
  }
  template <class Body>
  static std::string error_of(Body&& body) {
    try {
      body();
    } catch (const CommError& error) {
      return error.what();
    }
    ADD_FAILURE() << "expected a CommError, found none";
    return "";
  }
  // A moment that is not the last one.
  static int64_t next_ns() {
    const int64_t last = monotonic_ns();
    int64_t now = last;
    while (now == last) now = monotonic_ns();
    return now;
  }
  Work exchange(Communicator& group) {
    return group.exchange(Buffer::of(std::span<float>(values)), sends,
                          Buffer::of(std::span<float>(others)), receives, caller);
  }
  void expect_aborted_once() {
    EXPECT_CALL(*nccl, comm_abort(nccl->comm())).Times(1);
    EXPECT_CALL(*nccl, comm_finalize).Times(0);
    EXPECT_CALL(*nccl, comm_destroy).Times(0);
  }
  void expect_ended_in_order() {
    EXPECT_CALL(*nccl, comm_abort).Times(0);
    EXPECT_CALL(*nccl, comm_finalize(nccl->comm())).Times(1);
    EXPECT_CALL(*nccl, comm_destroy(nccl->comm())).Times(1);
  }

  std::shared_ptr<NiceMock<MockNccl>> nccl = std::make_shared<NiceMock<MockNccl>>();
  std::shared_ptr<NiceMock<MockCuda>> cuda = std::make_shared<NiceMock<MockCuda>>();
  char caller_stream = 0;
  StreamView caller = StreamView::cuda(&caller_stream);
  std::vector<float> values = std::vector<float>(12), others = std::vector<float>(12);
  std::vector<Segment> sends{{0, 0, 4}, {1, 4, 2}}, receives{{1, 0, 2}, {2, 2, 5}};
};

TEST_F(NcclBackendTest, ConnectsAllPairsAndEndsInOrder) {
  EXPECT_CALL(*cuda, set_device(2)).Times(AtLeast(1));
  {
    const InSequence order;
    EXPECT_CALL(*nccl, comm_init(_, 3, _, 1, _));
    EXPECT_CALL(*nccl, group_start);
    EXPECT_CALL(*nccl, send(_, 1, 2, nccl->comm(), cuda->stream()));
    EXPECT_CALL(*nccl, receive(_, 1, 0, nccl->comm(), cuda->stream()));
    EXPECT_CALL(*nccl, send(_, 1, 0, nccl->comm(), cuda->stream()));
    EXPECT_CALL(*nccl, receive(_, 1, 2, nccl->comm(), cuda->stream()));
    EXPECT_CALL(*nccl, group_end);
  }
  expect_ended_in_order();
  EXPECT_CALL(*cuda, destroy_stream(cuda->stream()));
  EXPECT_CALL(*cuda, release);
  make();
}

TEST_F(NcclBackendTest, EveryRankStartsWithTheIdOfRankZero) {
  std::vector<NcclUniqueId> ids(3);
  testing::run_ranks(3, [&](Communicator& world) {
    auto own_nccl = std::make_shared<NiceMock<MockNccl>>();
    auto own_cuda = std::make_shared<NiceMock<MockCuda>>();
    ON_CALL(*own_nccl, get_unique_id).WillByDefault([](NcclUniqueId* id) {
      for (int i = 0; i < 128; ++i) id->bytes[i] = static_cast<char>(i + 1);
      return kNcclSuccess;
    });
    EXPECT_CALL(*own_nccl, get_unique_id).Times(world.rank() == 0 ? 1 : 0);
    EXPECT_CALL(*own_nccl, comm_init(_, 3, _, world.rank(), _))
        .WillOnce(
            [&](NcclApi::Comm* comm, int, const NcclUniqueId& id, int rank, const NcclCommConfig&) {
              ids[rank] = id;
              *comm = own_nccl->comm();
              return kNcclSuccess;
            });
    make_nccl_backend({own_nccl, own_cuda}, world.split(0, world.rank(), "host"), {});
  });
  for (const auto& id : ids) {
    EXPECT_EQ(id.bytes[0], 1);
    EXPECT_EQ(id.bytes[126], 127);
  }
}

TEST_F(NcclBackendTest, WaitsWhileStartUpIsInProgress) {
  EXPECT_CALL(*nccl, comm_init)
      .WillOnce(DoAll(SetArgPointee<0>(nccl->comm()), Return(kNcclInProgress)));
  EXPECT_CALL(*nccl, comm_get_async_error)
      .WillOnce(DoAll(SetArgPointee<1>(kNcclInProgress), Return(kNcclSuccess)))
      .WillOnce(DoAll(SetArgPointee<1>(kNcclInProgress), Return(kNcclSuccess)))
      .WillRepeatedly(DoAll(SetArgPointee<1>(kNcclSuccess), Return(kNcclSuccess)));
  expect_ended_in_order();
  make();
}

TEST_F(NcclBackendTest, StartUpThatNeverEndsIsAborted) {
  EXPECT_CALL(*nccl, comm_init)
      .WillOnce(DoAll(SetArgPointee<0>(nccl->comm()), Return(kNcclInProgress)));
  nccl->report(kNcclInProgress);
  expect_aborted_once();
  EXPECT_THAT(error_of([&] { make(); }),
              AllOf(HasSubstr("[rank 1/3 world"), HasSubstr("start-up of NCCL"),
                    HasSubstr("ncclCommInitRank is still in progress after 50 ms")));
}

TEST_F(NcclBackendTest, StartUpErrorsAreNamed) {
  EXPECT_CALL(*cuda, set_device(2)).WillOnce(Return(101)).WillRepeatedly(Return(0));
  EXPECT_THAT(error_of([&] { make(); }), HasSubstr("cudaSetDevice failed: cuda code 101"));
  EXPECT_CALL(*nccl, comm_init).WillOnce(Return(kRemoteError));
  EXPECT_THAT(error_of([&] { make(); }), HasSubstr("ncclCommInitRank failed: nccl code 6"));
}

// A rank that cannot start takes the others with it, through the host communicator.
TEST_F(NcclBackendTest, AFailedStartReachesEveryRank) {
  testing::run_ranks(2, [&](Communicator& world) {
    auto own_nccl = std::make_shared<NiceMock<MockNccl>>();
    auto own_cuda = std::make_shared<NiceMock<MockCuda>>();
    if (world.rank() == 0) {
      ON_CALL(*own_nccl, get_unique_id).WillByDefault(Return(2));
    }
    const std::string error = error_of([&] {
      make_nccl_backend({own_nccl, own_cuda}, world.split(0, world.rank(), "host"), {});
    });
    EXPECT_THAT(error, HasSubstr("ncclGetUniqueId failed: nccl code 2"));
  });
}

TEST_F(NcclBackendTest, ExchangeIsOneGroupAfterTheCallersStream) {
  const auto group = make();
  const auto* from = reinterpret_cast<const char*>(values.data());
  auto* to = reinterpret_cast<char*>(others.data());
  {
    const InSequence order;
    EXPECT_CALL(*cuda, record(_, &caller_stream));
    EXPECT_CALL(*cuda, stream_wait(cuda->stream(), _));
    EXPECT_CALL(*cuda, record(_, cuda->stream()));
    EXPECT_CALL(*nccl, group_start);
    EXPECT_CALL(*nccl, send(from, 16, 0, nccl->comm(), cuda->stream()));
    EXPECT_CALL(*cuda, copy(to, from + 16, 8, cuda->stream()));
    EXPECT_CALL(*nccl, receive(to + 8, 20, 2, nccl->comm(), cuda->stream()));
    EXPECT_CALL(*nccl, group_end);
    EXPECT_CALL(*cuda, record(_, cuda->stream()));
  }
  exchange(*group).wait_host();
  const auto totals = group->recorder().totals();
  EXPECT_EQ(totals.bytes_sent, 16);
  EXPECT_EQ(totals.bytes_received, 20);
  EXPECT_EQ(totals.messages_sent, 1);
}

TEST_F(NcclBackendTest, CollectivesUseNcclsOwn) {
  const auto group = make();
  const Buffer whole = Buffer::of(std::span<float>(values)),
               other = Buffer::of(std::span<float>(others));
  EXPECT_CALL(*nccl, all_reduce(values.data(), 12, DType::kF32, ReduceOp::kMax, _, _));
  group->all_reduce(whole, ReduceOp::kMax, caller).wait_host();
  EXPECT_CALL(*nccl, broadcast(values.data(), 48, 2, _, _));
  group->broadcast(whole, 2, caller).wait_host();
  const std::vector<int64_t> even{4, 4, 4}, uneven{5, 4, 3};
  const Buffer part{others.data(), 4, DType::kF32};
  EXPECT_CALL(*nccl, all_gather(others.data(), values.data(), 16, _, _));
  group->all_gather(part, whole, even, caller).wait_host();
  EXPECT_CALL(*nccl, reduce_scatter(values.data(), others.data(), 4, DType::kF32, _, _));
  group->reduce_scatter(whole, part, even, caller).wait_host();
  for (const auto& [root, offset, count] : {std::tuple(0, 0, 5), {1, 5, 4}, {2, 9, 3}}) {
    EXPECT_CALL(*nccl, reduce(values.data() + offset, root == 1 ? others.data() : nullptr, count,
                              DType::kF32, root, _, _));
  }
  group->reduce_scatter(whole, part, uneven, caller).wait_host();
  EXPECT_CALL(*nccl, send(others.data(), 16, _, _, _)).Times(2);
  EXPECT_CALL(*nccl, receive(values.data(), 20, 0, _, _));
  EXPECT_CALL(*nccl, receive(values.data() + 9, 12, 2, _, _));
  EXPECT_CALL(*cuda, copy(values.data() + 5, others.data(), 16, _));
  group->all_gather(part, whole, uneven, caller).wait_host();
  EXPECT_CALL(*cuda, copy(others.data() + 4, values.data() + 4, 16, _));
  EXPECT_CALL(*nccl, send(_, 16, _, _, _)).Times(2);
  EXPECT_CALL(*nccl, receive(_, 16, _, _, _)).Times(2);
  group->all_to_all(whole, other, caller).wait_host();
  group->barrier();
}

// The stream waits, the host does not; dropping the handle then does not block either.
TEST_F(NcclBackendTest, AStreamCanWaitInsteadOfTheHost) {
  const auto group = make();
  cuda->answer_queries(kCudaNotReady);
  char consumer = 0;
  EXPECT_CALL(*cuda, stream_wait(_, _)).Times(AtLeast(1));
  EXPECT_CALL(*cuda, stream_wait(&consumer, _));
  const int64_t sequence = group->recorder().next_sequence();
  {
    Work work = exchange(*group);
    work.wait(StreamView::cuda(&consumer));
    EXPECT_FALSE(work.done());
  }
  EXPECT_EQ(group->recorder().since(sequence).front().state, OpState::kStarted);
  cuda->answer_queries(kCudaSuccess);
  exchange(*group).wait_host();
  EXPECT_EQ(group->recorder().since(sequence).front().state, OpState::kCompleted)
      << "seen when the next operation is issued";
  expect_ended_in_order();
}

// The times are those of the events on the communicator's stream, not of the host's looks.
TEST_F(NcclBackendTest, AnOperationTookPlaceWhenTheDeviceSaysSo) {
  const auto group = make();
  const int64_t before = monotonic_ns();
  void* start = nullptr;
  void* end = nullptr;
  {
    const InSequence order;
    EXPECT_CALL(*cuda, record(_, &caller_stream));
    EXPECT_CALL(*cuda, record(_, cuda->stream())).WillOnce(DoAll(SaveArg<0>(&start), Return(0)));
    EXPECT_CALL(*nccl, group_start);
    EXPECT_CALL(*nccl, group_end);
    EXPECT_CALL(*cuda, record(_, cuda->stream())).WillOnce(DoAll(SaveArg<0>(&end), Return(0)));
  }
  cuda->answer_queries(kCudaNotReady);
  Work work = exchange(*group);
  ASSERT_NE(start, end);
  EXPECT_FALSE(work.done());
  int64_t at[3];  // the device has started, has ended, is looked at
  for (int64_t& ns : at) ns = next_ns();
  EXPECT_CALL(*cuda, time_of(start, _)).WillOnce(DoAll(SetArgPointee<1>(at[0]), Return(0)));
  EXPECT_CALL(*cuda, time_of(end, _)).WillOnce(DoAll(SetArgPointee<1>(at[1]), Return(0)));
  cuda->answer_queries(kCudaSuccess);
  EXPECT_TRUE(work.done());
  const OpRecord record = group->recorder().since(0).front();
  EXPECT_GE(record.enqueue_ns, before);
  EXPECT_EQ(record.start_ns, at[0]);
  EXPECT_EQ(record.end_ns, at[1]);
  EXPECT_EQ(record.state, OpState::kCompleted);
  work.wait_host();
  EXPECT_EQ(group->recorder().since(0).front().end_ns, at[1]);
}

// Nobody on the host waits for it: it gets its times when the group is next used, or looked at.
TEST_F(NcclBackendTest, AnOperationLeftToTheDeviceHasItsTimesToo) {
  const std::function<void(Communicator&)> looks[] = {
      [&](Communicator& group) { exchange(group).wait_host(); },
      [](Communicator& group) { group.progress(); }, [](Communicator& group) { group.check(); }};
  for (const auto& look : looks) {
    const auto group = make();
    cuda->answer_queries(kCudaNotReady);
    char consumer = 0;
    exchange(*group).wait(StreamView::cuda(&consumer));
    const int64_t start = next_ns(), end = next_ns();
    EXPECT_CALL(*cuda, time_of)
        .WillOnce(DoAll(SetArgPointee<1>(start), Return(0)))
        .WillOnce(DoAll(SetArgPointee<1>(end), Return(0)))
        .WillRepeatedly(DoAll(SetArgPointee<1>(end), Return(0)));
    cuda->answer_queries(kCudaSuccess);
    look(*group);
    const OpRecord record = group->recorder().since(0).front();
    EXPECT_EQ(record.state, OpState::kCompleted);
    EXPECT_EQ(record.start_ns, start);
    EXPECT_EQ(record.end_ns, end);
    ::testing::Mock::VerifyAndClearExpectations(cuda.get());
  }
}

TEST_F(NcclBackendTest, AskingForTheTimesCanFail) {
  auto group = make();
  expect_aborted_once();
  EXPECT_CALL(*cuda, time_of).WillOnce(Return(kCudaLaunchFailure));
  EXPECT_THAT(error_of([&] { exchange(*group).wait_host(); }),
              AllOf(HasSubstr("[rank 1/3 world seq 0] exchange"),
                    HasSubstr("cudaEventElapsedTime failed: cuda code 719")));
  EXPECT_EQ(group->recorder().since(0).front().state, OpState::kFailed);
}

// What an abort ends has not taken place.
TEST_F(NcclBackendTest, AFailedOperationIsNotAskedForItsTimes) {
  auto group = make();
  cuda->answer_queries(kCudaNotReady);
  Work work = exchange(*group);
  EXPECT_CALL(*cuda, time_of).Times(0);
  group->abort("the lights went out");
  error_of([&] { work.wait_host(); });
  EXPECT_EQ(group->recorder().since(0).front().state, OpState::kFailed);
}

TEST_F(NcclBackendTest, EventsAreUsedAgain) {
  EXPECT_CALL(*cuda, create_event).Times(4);
  EXPECT_CALL(*cuda, destroy_event).Times(4);
  const auto group = make();  // takes two
  char consumer = 0;
  for (int i = 0; i < 5; ++i) {
    exchange(*group).wait_host();
    exchange(*group).wait(StreamView::cuda(&consumer));  // swept by the next operation
    Work first = exchange(*group), second = exchange(*group);
    second.wait_host();
    first.wait_host();
  }
}

TEST_F(NcclBackendTest, EventsOfWhatCouldNotBeEnqueuedAreUsedAgain) {
  EXPECT_CALL(*cuda, create_event).Times(2);
  EXPECT_CALL(*cuda, destroy_event).Times(2);
  const auto group = make();
  EXPECT_CALL(*cuda, record(_, cuda->stream())).WillOnce(Return(kCudaLaunchFailure));
  EXPECT_CALL(*cuda, record(_, &caller_stream));
  EXPECT_THAT(error_of([&] { exchange(*group).wait_host(); }),
              HasSubstr("cudaEventRecord failed: cuda code 719"));
}

// A stream that waits counts as such, and profilers read which operation is enqueued.
TEST_F(NcclBackendTest, TheTimelineHearsOfAStreamsWait) {
  sprocket::testing::ScriptedStream stream;
  stream.traced = true;
  Timeline timeline;
  timeline.set_recording(true);
  timeline.measure_by(stream.moments());
  CommunicatorOptions options;
  options.timeline = &timeline;
  Communicator group(make_nccl_backend({nccl, cuda}, make_fake_world(1, 3), {.timeout = 50ms}),
                     "sp.outer", options);
  char consumer = 0;
  EXPECT_CALL(*cuda, stream_wait).WillRepeatedly(Return(0));
  EXPECT_CALL(*cuda, stream_wait(&consumer, _)).WillOnce([&](void*, void*) {
    stream.work(70);
    return 0;
  });
  exchange(group).wait_host();
  cuda->answer_queries(kCudaNotReady);
  {
    const Timeline::Scope compute(&timeline, Activity::kCompute, "compute");
    Work work = exchange(group);
    stream.work(20);
    work.wait(StreamView::cuda(&consumer));
    stream.work(5);
  }
  cuda->answer_queries(kCudaSuccess);
  EXPECT_THAT(stream.ranges, ElementsAre("sp.outer exchange #0", ".", "compute",
                                         "sp.outer exchange #1", ".", "exchange", ".", "."));
  const auto intervals = timeline.take();
  ASSERT_EQ(intervals.size(), 3u);
  const std::pair<const char*, int64_t> expected[] = {
      {"compute", 20}, {"exchange", 70}, {"compute", 5}};
  for (int i = 0; i < 3; ++i) {
    EXPECT_STREQ(intervals[i].name, expected[i].first);
    EXPECT_EQ(intervals[i].end_ns - intervals[i].begin_ns, expected[i].second);
  }
  EXPECT_EQ(intervals[1].activity, Activity::kCommunicationWait);
}

TEST_F(NcclBackendTest, TimeOutAbortsOnce) {
  auto group = make();
  cuda->answer_queries(kCudaNotReady);
  expect_aborted_once();
  EXPECT_THAT(error_of([&] { exchange(*group).wait_host(); }),
              AllOf(HasSubstr("[rank 1/3 world seq 0] exchange: timed out after 50 ms"),
                    HasSubstr("waiting for the device")));
  EXPECT_THAT(error_of([&] { exchange(*group).wait_host(); }), HasSubstr("aborted: "));
  EXPECT_THROW(group->check(), CommError);
  EXPECT_THROW(group->barrier(), CommError);
  group.reset();
}

TEST_F(NcclBackendTest, AsynchronousErrorIsFoundWhileWaiting) {
  auto group = make();
  cuda->answer_queries(kCudaNotReady);
  expect_aborted_once();
  Work work = exchange(*group);
  nccl->report(kRemoteError);
  EXPECT_THAT(error_of([&] { work.wait_host(); }), HasSubstr("NCCL failed: nccl code 6"));
}

TEST_F(NcclBackendTest, DeviceErrorIsFoundWhileWaiting) {
  auto group = make();
  Work work = exchange(*group);
  cuda->answer_queries(kCudaLaunchFailure);
  EXPECT_THAT(error_of([&] { work.wait_host(); }),
              HasSubstr("cudaEventQuery failed: cuda code 719"));
}

TEST_F(NcclBackendTest, AnErrorWhileEnqueueingClosesTheGroup) {
  auto group = make();
  expect_aborted_once();
  EXPECT_CALL(*nccl, group_start).Times(1);
  EXPECT_CALL(*nccl, group_end).Times(1);
  EXPECT_CALL(*nccl, send(_, _, 0, _, _)).WillOnce(Return(5));
  EXPECT_THAT(error_of([&] { exchange(*group).wait_host(); }),
              AllOf(HasSubstr("ncclSend failed: nccl code 5"), HasSubstr("(peer 0)")));
}

TEST_F(NcclBackendTest, EnqueueingInProgressIsSettledAtTheEndOfTheGroup) {
  const auto group = make();
  ON_CALL(*nccl, send).WillByDefault(Return(kNcclInProgress));
  EXPECT_CALL(*nccl, group_end).WillOnce(Return(kNcclInProgress));
  EXPECT_CALL(*nccl, comm_get_async_error)
      .WillOnce(DoAll(SetArgPointee<1>(kNcclSuccess), Return(kNcclSuccess)))
      .WillOnce(DoAll(SetArgPointee<1>(kNcclInProgress), Return(kNcclSuccess)))
      .WillRepeatedly(DoAll(SetArgPointee<1>(kNcclSuccess), Return(kNcclSuccess)));
  exchange(*group).wait_host();
}

// The peer's own NCCL may never tell: its abort comes through the host communicator.
TEST_F(NcclBackendTest, HearsOfAPeersAbort) {
  testing::run_ranks(2, [&](Communicator& world) {
    auto own_nccl = std::make_shared<NiceMock<MockNccl>>();
    auto own_cuda = std::make_shared<NiceMock<MockCuda>>();
    EXPECT_CALL(*own_nccl, comm_abort).Times(1).WillOnce([&](NcclApi::Comm) {
      own_cuda->answer_queries(kCudaSuccess);
      return kNcclSuccess;
    });
    Communicator group(
        make_nccl_backend({own_nccl, own_cuda}, world.split(0, world.rank(), "host"), {}), "device",
        {});
    own_cuda->answer_queries(kCudaNotReady);
    world.barrier();
    if (world.rank() == 1) {
      group.abort("the fan has stopped");
      return;
    }
    std::vector<float> data(4);
    const Segment to{1, 0, 4};
    const auto error = error_of([&] {
      group.exchange(Buffer::of(std::span<float>(data)), {&to, 1}, {}, {}, caller).wait_host();
    });
    EXPECT_THAT(error, AllOf(HasSubstr("the fan has stopped"), HasSubstr("(peer 1)")));
  });
}

TEST_F(NcclBackendTest, UnwindingAborts) {
  expect_aborted_once();
  try {
    const auto group = make();
    throw std::runtime_error("something else went wrong");
  } catch (const std::runtime_error&) {
  }
}

TEST_F(NcclBackendTest, AnEndThatTakesTooLongIsAnAbort) {
  auto group = make();
  EXPECT_CALL(*nccl, comm_finalize).WillOnce(Return(kNcclInProgress));
  EXPECT_CALL(*nccl, comm_destroy).Times(0);
  EXPECT_CALL(*nccl, comm_abort).Times(1);
  nccl->report(kNcclInProgress);
  group.reset();
}

TEST_F(NcclBackendTest, SaysWhatItCannotDo) {
  const auto group = make();
  std::vector<uint16_t> shorts(4);
  const auto refusal = [](auto&& body) -> std::string {
    try {
      body();
    } catch (const InternalError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(refusal([&] {
                group->all_reduce(Buffer::of(std::span<uint16_t>(shorts)), ReduceOp::kSum, caller)
                    .wait_host();
              }),
              HasSubstr("NCCL cannot reduce u16"));
  EXPECT_THAT(refusal([&] {
                group->all_reduce(Buffer::of(std::span<float>(values)), ReduceOp::kSum).wait_host();
              }),
              HasSubstr("expected device memory and a device stream"));
}

TEST_F(NcclBackendTest, SplitsWithTheHostCommunicator) {
  auto choices = [](const std::string&, int rank) { return SplitChoice{rank % 2, rank}; };
  Communicator group(
      make_nccl_backend({nccl, cuda}, make_fake_world(2, 3, {}, choices), {.timeout = 50ms}),
      "world", {});
  EXPECT_CALL(*nccl, comm_init(_, 2, _, 1, _)).Times(1);
  EXPECT_CALL(*nccl, comm_destroy).Times(2);
  const auto part = group.split(0, 2, "even");
  EXPECT_EQ(part->size(), 2);
  EXPECT_EQ(part->rank(), 1);
}

TEST_F(NcclBackendTest, ItsStreamAndItsKernelsAreAsChosen) {
  NcclCommConfig config;
  ON_CALL(*nccl, comm_init)
      .WillByDefault(
          [&](NcclApi::Comm* comm, int, const NcclUniqueId&, int, const NcclCommConfig& given) {
            *comm = nccl->comm();
            config = given;
            return kNcclSuccess;
          });
  EXPECT_CALL(*cuda, create_stream(_, StreamPriority::kHigh));
  auto backend = make_nccl_backend({nccl, cuda}, make_fake_world(1, 3), {});
  EXPECT_STREQ(config.name, "world");
  EXPECT_EQ(config.max_ctas, 0);
  NcclOptions options;
  options.priority = StreamPriority::kNormal;
  options.max_ctas = 2;
  EXPECT_CALL(*cuda, create_stream(_, StreamPriority::kNormal));
  backend = make_nccl_backend({nccl, cuda}, make_fake_world(1, 3), options);
  EXPECT_EQ(config.max_ctas, 2);
}

// An abort ends the kernels, and their event then looks like one of completion.
TEST_F(NcclBackendTest, AnAbortedOperationHasNotCompleted) {
  auto group = make();
  cuda->answer_queries(kCudaNotReady);
  expect_aborted_once();
  Work waited = exchange(*group), polled = exchange(*group), ordered = exchange(*group);
  char consumer = 0;
  group->abort("the lights went out");
  EXPECT_THAT(error_of([&] { waited.wait_host(); }), HasSubstr("the lights went out"));
  EXPECT_TRUE(polled.done());
  EXPECT_THAT(error_of([&] { polled.wait_host(); }), HasSubstr("the lights went out"));
  EXPECT_THAT(error_of([&] { ordered.wait(StreamView::cuda(&consumer)); }),
              HasSubstr("the lights went out"));
  for (const auto& record : group->recorder().since(0)) EXPECT_EQ(record.state, OpState::kFailed);
}

// No host waits for it: whoever looks at the group finds that it hangs.
TEST_F(NcclBackendTest, AnOperationLeftToTheDeviceHasTheTimeOutToo) {
  auto group = make();
  cuda->answer_queries(kCudaNotReady);
  expect_aborted_once();
  char consumer = 0;
  exchange(*group).wait(StreamView::cuda(&consumer));
  const auto begin = std::chrono::steady_clock::now();
  const auto error = error_of([&] {
    for (;;) group->check();
  });
  EXPECT_THAT(error, AllOf(HasSubstr("exchange: timed out after 50 ms"),
                           HasSubstr("waiting for the device")));
  EXPECT_GE(std::chrono::steady_clock::now() - begin, 40ms);
  EXPECT_EQ(group->recorder().since(0).front().state, OpState::kFailed);
}

TEST_F(NcclBackendTest, OrderingAStreamCanFail) {
  auto group = make();
  Work work = exchange(*group);
  char consumer = 0;
  EXPECT_CALL(*cuda, stream_wait(&consumer, _)).WillOnce(Return(kCudaLaunchFailure));
  expect_aborted_once();
  EXPECT_THAT(error_of([&] { work.wait(StreamView::cuda(&consumer)); }),
              AllOf(HasSubstr("[rank 1/3 world seq 0] exchange"),
                    HasSubstr("cudaStreamWaitEvent failed: cuda code 719")));
}

TEST_F(NcclBackendTest, EveryCallOfStartUpMayFail) {
  struct Case {
    const char* call;
    std::function<void()> fail;
  };
  const auto fails = [](auto&& expectation) { expectation.WillOnce(Return(4)); };
  const Case cases[] = {
      {"cudaStreamCreate failed: cuda code 4", [&] { fails(EXPECT_CALL(*cuda, create_stream)); }},
      {"cudaMalloc failed: cuda code 4", [&] { fails(EXPECT_CALL(*cuda, allocate)); }},
      {"cudaEventCreate failed: cuda code 4", [&] { fails(EXPECT_CALL(*cuda, create_event)); }},
      {"cudaEventRecord failed: cuda code 4", [&] { fails(EXPECT_CALL(*cuda, record)); }},
      {"cudaEventQuery failed: cuda code 4", [&] { fails(EXPECT_CALL(*cuda, query)); }},
      {"ncclGroupStart failed: nccl code 4", [&] { fails(EXPECT_CALL(*nccl, group_start)); }},
      {"ncclSend failed: nccl code 4", [&] { fails(EXPECT_CALL(*nccl, send)); }},
      {"ncclRecv failed: nccl code 4", [&] { fails(EXPECT_CALL(*nccl, receive)); }},
      {"ncclGroupEnd failed: nccl code 4", [&] { fails(EXPECT_CALL(*nccl, group_end)); }},
      {"NCCL failed: nccl code 4", [&] { fails(EXPECT_CALL(*nccl, comm_get_async_error)); }}};
  for (const auto& [call, fail] : cases) {
    SCOPED_TRACE(call);
    fail();
    EXPECT_CALL(*nccl, comm_abort).Times(call == cases[0].call ? 0 : 1);
    EXPECT_THAT(error_of([&] { make(); }), AllOf(HasSubstr("start-up of NCCL"), HasSubstr(call)));
    ::testing::Mock::VerifyAndClearExpectations(nccl.get());
    ::testing::Mock::VerifyAndClearExpectations(cuda.get());
    cuda->answer_queries(kCudaSuccess);
  }
  cuda->answer_queries(kCudaNotReady);
  EXPECT_THAT(error_of([&] { make(); }), HasSubstr("connecting all pairs: not done after 50 ms"));
  // What was made is given back.
  EXPECT_CALL(*cuda, query).WillOnce([&](void*) {
    nccl->report(kRemoteError);
    return kCudaNotReady;
  });
  EXPECT_CALL(*cuda, create_event).Times(2);
  // Memory can be released only when no kernel waits for a peer any more.
  const InSequence order;
  EXPECT_CALL(*nccl, comm_abort).Times(1);
  EXPECT_CALL(*cuda, release).Times(1);
  EXPECT_CALL(*cuda, destroy_event).Times(2);
  EXPECT_CALL(*cuda, destroy_stream).Times(1);
  EXPECT_THAT(error_of([&] { make(); }), HasSubstr("NCCL failed: nccl code 6"));
}

TEST_F(NcclBackendTest, EveryCallOfAnOperationMayFail) {
  const Buffer whole = Buffer::of(std::span<float>(values));
  const Buffer part{others.data(), 4, DType::kF32};
  const std::vector<int64_t> even{4, 4, 4}, uneven{5, 4, 3};
  const auto fails = [](auto&& expectation) {
    expectation.WillOnce(Return(5)).WillRepeatedly(Return(0));
  };
  struct Case {
    const char* call;
    std::function<void()> fail;
    std::function<Work(Communicator&)> run;
  };
  const auto exchanged = [&](Communicator& group) { return exchange(group); };
  const Case cases[] = {
      {"cudaEventRecord", [&] { fails(EXPECT_CALL(*cuda, record)); }, exchanged},
      {"cudaStreamWaitEvent", [&] { fails(EXPECT_CALL(*cuda, stream_wait)); }, exchanged},
      {"cudaEventElapsedTime", [&] { fails(EXPECT_CALL(*cuda, time_of)); }, exchanged},
      {"cudaMemcpyAsync", [&] { fails(EXPECT_CALL(*cuda, copy)); }, exchanged},
      {"ncclGroupStart", [&] { fails(EXPECT_CALL(*nccl, group_start)); }, exchanged},
      {"ncclRecv", [&] { fails(EXPECT_CALL(*nccl, receive)); }, exchanged},
      {"ncclGroupEnd", [&] { fails(EXPECT_CALL(*nccl, group_end)); }, exchanged},
      {"ncclAllReduce", [&] { fails(EXPECT_CALL(*nccl, all_reduce)); },
       [&](Communicator& group) { return group.all_reduce(whole, ReduceOp::kSum, caller); }},
      {"ncclBroadcast", [&] { fails(EXPECT_CALL(*nccl, broadcast)); },
       [&](Communicator& group) { return group.broadcast(whole, 0, caller); }},
      {"ncclAllGather", [&] { fails(EXPECT_CALL(*nccl, all_gather)); },
       [&](Communicator& group) { return group.all_gather(part, whole, even, caller); }},
      {"ncclReduceScatter", [&] { fails(EXPECT_CALL(*nccl, reduce_scatter)); },
       [&](Communicator& group) { return group.reduce_scatter(whole, part, even, caller); }},
      {"ncclReduce", [&] { fails(EXPECT_CALL(*nccl, reduce)); },
       [&](Communicator& group) { return group.reduce_scatter(whole, part, uneven, caller); }}};
  for (const auto& [call, fail, run] : cases) {
    SCOPED_TRACE(call);
    auto group = make();
    fail();
    EXPECT_CALL(*nccl, comm_abort).Times(1);
    EXPECT_CALL(*nccl, comm_finalize).Times(0);
    EXPECT_THAT(error_of([&] { run(*group).wait_host(); }),
                HasSubstr(std::string(call) + " failed: "));
    group.reset();
    ::testing::Mock::VerifyAndClearExpectations(nccl.get());
    ::testing::Mock::VerifyAndClearExpectations(cuda.get());
  }
}

TEST_F(NcclBackendTest, AnEndThatFailsIsAnAbort) {
  auto group = make();
  EXPECT_CALL(*nccl, comm_finalize).WillOnce(Return(kRemoteError));
  EXPECT_CALL(*nccl, comm_destroy).Times(0);
  EXPECT_CALL(*nccl, comm_abort).Times(1);
  group.reset();
  // Too late for an abort: the communicator is gone either way.
  group = make();
  EXPECT_CALL(*nccl, comm_finalize).Times(1);
  EXPECT_CALL(*nccl, comm_destroy).WillOnce(Return(kRemoteError));
  EXPECT_CALL(*nccl, comm_abort).Times(0);
  EXPECT_CALL(*cuda, destroy_stream).Times(1);
  group.reset();
}

TEST_F(NcclBackendTest, DestructionInProgressIsNotPolled) {
  auto group = make();
  EXPECT_CALL(*nccl, comm_destroy).WillOnce(Return(kNcclInProgress));
  EXPECT_CALL(*nccl, comm_abort).Times(0);
  EXPECT_CALL(*nccl, comm_get_async_error(nccl->comm(), _)).Times(AtLeast(0));
  EXPECT_CALL(*nccl, comm_get_async_error(nullptr, _)).Times(0);
  group.reset();
}

}  // namespace
}  // namespace sprocket::comm

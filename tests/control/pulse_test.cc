#include "runtime/control/pulse.h"

#include <gtest/gtest.h>
#include <array>
#include <filesystem>
#include <span>

#include "parallel/comm/fake_backend.h"

namespace sprocket::control {
namespace {

TEST(Pulse, SaysWhatTheJobDoes) {
  Pulse pulse;
  Heartbeat beat = pulse.heartbeat();
  EXPECT_EQ(beat.section(), static_cast<int>(Section::kInit));
  EXPECT_EQ(beat.step(), -1);
  EXPECT_EQ(beat.checkpoint_step(), -1);
  pulse.enter(Section::kStep);
  pulse.step_done({.done = 7, .loss = 0.25});
  {
    const SectionScope scope(&pulse, Section::kCheckpoint);
    EXPECT_EQ(pulse.heartbeat().section(), static_cast<int>(Section::kCheckpoint));
    pulse.checkpoint_saved(7);
  }
  beat = pulse.heartbeat();
  EXPECT_EQ(beat.section(), static_cast<int>(Section::kStep));
  EXPECT_EQ(beat.step(), 7);
  EXPECT_EQ(beat.loss(), 0.25);
  EXPECT_EQ(beat.checkpoint_step(), 7);
  const SectionScope nobody(nullptr, Section::kSample);
}

TEST(Pulse, HasTheTimesOfTheLastSteps) {
  Pulse pulse;
  EXPECT_EQ(pulse.heartbeat().step_time_size(), 0);
  EXPECT_FALSE(pulse.heartbeat().has_total_steps());
  for (int64_t step = 1; step <= 100; ++step) {
    pulse.step_done({.done = step,
                     .total = 500,
                     .loss = 1,
                     .tokens = 4096,
                     .wall_ns = step * 1'000'000,
                     .exposed_ns = step % 2 == 0 ? 300'000 : -1});
  }
  const Heartbeat beat = pulse.heartbeat();
  EXPECT_EQ(beat.step(), 100);
  EXPECT_EQ(beat.total_steps(), 500);
  EXPECT_EQ(beat.tokens(), 4096);
  ASSERT_EQ(beat.step_time_size(), 64);
  EXPECT_EQ(beat.step_time(0).step(), 37);
  EXPECT_FALSE(beat.step_time(0).has_exposed_us());
  EXPECT_EQ(beat.step_time(63).step(), 100);
  EXPECT_EQ(beat.step_time(63).wall_us(), 100'000);
  EXPECT_EQ(beat.step_time(63).exposed_us(), 300);
}

TEST(Pulse, SaysWhereTheJobWritesTo) {
  Pulse pulse;
  EXPECT_FALSE(pulse.heartbeat().has_folder());
  pulse.writes_to("/data/./runs/../run");
  EXPECT_EQ(pulse.heartbeat().folder(), "/data/run");
  pulse.writes_to("run");
  EXPECT_EQ(pulse.heartbeat().folder(), (std::filesystem::current_path() / "run").string());
}

TEST(Pulse, HasTheLastOperationOfEachGroup) {
  Timeline timeline;
  comm::CommunicatorOptions options;
  options.timeline = &timeline;
  const auto world = comm::make_fake_world(2, 4, options, [](const std::string&, int rank) {
    return comm::SplitChoice{rank / 2, rank};
  });
  const auto pair = world->split(1, 2, "sp");
  const auto alone = comm::make_fake_world(0, 1);
  Pulse pulse;
  {
    const WatchScope scope(&pulse, {world.get(), pair.get(), alone.get()});
    timeline.position = {12, Phase::kBackward, 3};
    std::array<double, 2> values = {1, 2};
    for (int i = 0; i < 3; ++i) {
      pair->all_reduce(comm::Buffer::of(std::span<double>(values)), comm::ReduceOp::kSum)
          .wait_host();
    }
    const Heartbeat beat = pulse.heartbeat();
    ASSERT_EQ(beat.operation_size(), 2);
    EXPECT_EQ(beat.operation(0).name(), "split");
    const Operation& last = beat.operation(1);
    EXPECT_EQ(last.communicator(), "sp");
    EXPECT_EQ(last.leader(), pair->member_world_ranks().front());
    EXPECT_EQ(last.ranks(), 2);
    EXPECT_EQ(last.sequence(), 2);
    EXPECT_EQ(last.name(), "all_reduce");
    EXPECT_FALSE(last.unfinished());
    EXPECT_EQ(last.step(), 12);
    EXPECT_EQ(last.phase(), "backward");
    EXPECT_EQ(last.layer(), 3);
    EXPECT_EQ(pulse.dump(2).operation_size(), 3);
    EXPECT_EQ(pulse.dump(2).operation(1).sequence(), 1);
  }
  EXPECT_EQ(pulse.heartbeat().operation_size(), 0);
  EXPECT_FALSE(pulse.last_words());
}

TEST(Pulse, KeepsItsLastWordsWhenAnExceptionEndsTheWatch) {
  Timeline timeline;
  comm::CommunicatorOptions options;
  options.timeline = &timeline;
  const auto world = comm::make_fake_world(0, 2, options);
  Pulse pulse;
  try {
    const WatchScope scope(&pulse, {world.get()});
    const SectionScope section(&pulse, Section::kTeacher);
    world->barrier();
    world->barrier();
    throw 1;
  } catch (int) {
  }
  const std::optional<LastWords> words = pulse.last_words();
  ASSERT_TRUE(words);
  EXPECT_EQ(words->heartbeat().section(), static_cast<int>(Section::kTeacher));
  EXPECT_EQ(words->heartbeat().operation_size(), 1);
  EXPECT_EQ(words->dump().operation_size(), 2);
  EXPECT_EQ(pulse.heartbeat().operation_size(), 0);
}

}  // namespace
}  // namespace sprocket::control

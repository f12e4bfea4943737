// What a rank was doing, when: the raw material of the communication-against-compute report.
//
// A rank has one Timeline, used by its one issuing thread. Scopes nest; a scope that opens inside
// another one suspends it, so that the recorded intervals never overlap and a wait for
// communication inside a compute scope is not counted as compute.
//
// On the host an interval is the time between the calls that open and close a scope. A rank that
// holds a device enqueues its work in these calls, and the device does it later: an interval is
// then the time that the device's stream spends from where the scope opens, when all work enqueued
// before it is done, to where it closes, when the scope's own last work is done. Where the stream
// stands still in between, because the host is late, is in it. A wait for communication is the
// time that the stream stands still for it, whether the host waits as well or not. Loading samples
// and writing checkpoints are the host's activities and keep its times. All are nanoseconds of one
// clock, the host's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/moment_source.h"

namespace sprocket {

// Nanoseconds of the monotonic clock.
int64_t monotonic_ns();

enum class Phase : uint8_t {
  kOther,
  kForward,
  kBackward,
  kRecompute,
  kOptimizer,
  kSample,
  // Evaluations without a backward, of a distillation's networks.
  kStudent,
  kTeacher,
  kFakeScore,
  // The same as the job's own network's, while a distillation's fake score learns.
  kFakeScoreForward,
  kFakeScoreBackward,
  kFakeScoreRecompute,
  kFakeScoreOptimizer
};
inline constexpr int kPhases = 13;
const char* name_of(Phase phase);

enum class Activity : uint8_t {
  kCompute,
  kCommunicationWait,
  kCopy,
  kDataWait,
  kCheckpoint,
  kOther
};
const char* name_of(Activity activity);
// Whether a device's times are meant, where there is one.
bool is_of_device(Activity activity);

// Where in the job a record was made.
struct Position {
  int64_t step = -1;
  Phase phase = Phase::kOther;
  int16_t layer = -1;  // -1: outside the blocks
};

// What an activity takes of the machine: floating-point operations, of which a multiply-add is two,
// and bytes to and from memory, at least.
struct Work {
  double flops = 0;
  double bytes = 0;
  bool operator==(const Work&) const = default;
};

struct Interval {
  Activity activity;
  const char* name;  // static storage: an operation's name such as "attention.local"
  Position position;
  int64_t begin_ns;
  int64_t end_ns;
  // The scope's last interval, the others end where a scope inside it begins: for counting calls.
  // It is left out, as every interval, when it takes no time, unless it has work.
  bool closes = true;
  Work work = {};  // of the whole scope, in its last interval; zero where nobody counted
};

class Timeline {
 public:
  // Position is kept whether or not intervals are recorded: communicators read it.
  Position position;
  // Set by FakeScoreScope.
  bool trains_fake_score = false;

  // A scope that is open when recording is turned on counts from its beginning on the host; on a
  // device, which was not asked then, from where a scope inside it closes.
  void set_recording(bool recording) { recording_ = recording; }
  bool recording() const { return recording_; }

  // Who measures from now on; null is the host. What the former one measured and nobody took is
  // dropped, of the scopes that are open as well.
  void measure_by(std::unique_ptr<MomentSource> device);

  // Removes and returns what was recorded, in order of end time. On a device it waits until all of
  // that has happened. Throws CudaError.
  std::vector<Interval> take();

  class Scope {
   public:
    // `timeline` may be null: then nothing happens.
    Scope(Timeline* timeline, Activity activity, const char* name);
    // `work` is called, and returns the scope's Work, when intervals are recorded.
    template <class WorkOf>
    Scope(Timeline* timeline, Activity activity, const char* name, WorkOf&& work)
        : timeline_(timeline) {
      if (timeline_) timeline_->enter(activity, name, timeline_->recording() ? work() : Work{});
    }
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Timeline* timeline_;
  };

  // A range for profilers, and nothing else, around what is enqueued meanwhile. `name` is called
  // when a profiler looks.
  class Range {
   public:
    template <class Name>
    Range(Timeline* timeline, Name&& name)
        : timeline_(timeline && timeline->traced() ? timeline : nullptr) {
      if (timeline_) timeline_->push_range(std::string(name()).c_str());
    }
    ~Range() {
      if (timeline_) timeline_->pop_range();
    }
    Range(const Range&) = delete;
    Range& operator=(const Range&) = delete;

   private:
    Timeline* timeline_;
  };

 private:
  class Present;
  struct Open {
    Activity activity;
    const char* name;
    int64_t begin;  // as in intervals_
    Work work;
  };
  void enter(Activity activity, const char* name, const Work& work);
  void leave();
  void suspend(const Open& open, int64_t end);
  void close(const Open& open, int64_t end);
  void settle(std::vector<Interval>& taken);
  bool traced() const { return device_ && device_->traced(); }
  void push_range(const char* name);
  void pop_range();

  bool recording_ = false;
  std::unique_ptr<MomentSource> device_;
  int64_t ranges_ = 0;  // open ones of device_
  std::vector<Open> open_;
  // Until they are taken, what is of the device has its moments for begin and end.
  std::vector<Interval> intervals_;
};

// Sets a phase or a layer for a scope and restores the former one.
class PhaseScope {
 public:
  PhaseScope(Timeline* timeline, Phase phase);
  ~PhaseScope();
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  Timeline* timeline_;
  Phase former_ = Phase::kOther;
};

// While it lives, forward, backward, recompute and optimizer are the fake score's.
class FakeScoreScope {
 public:
  explicit FakeScoreScope(Timeline* timeline);
  ~FakeScoreScope();
  FakeScoreScope(const FakeScoreScope&) = delete;
  FakeScoreScope& operator=(const FakeScoreScope&) = delete;

 private:
  Timeline* timeline_;
};

class LayerScope {
 public:
  LayerScope(Timeline* timeline, int layer);
  ~LayerScope();
  LayerScope(const LayerScope&) = delete;
  LayerScope& operator=(const LayerScope&) = delete;

 private:
  Timeline* timeline_;
  int16_t former_ = -1;
};

}  // namespace sprocket

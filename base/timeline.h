// What a rank was doing, when: the raw material of the communication-against-compute report.
//
// A rank has one Timeline, used by its one issuing thread. Scopes nest; a scope that opens inside
// another one suspends it, so that the recorded intervals never overlap and a wait for
// communication inside a compute scope is not counted as compute.
#pragma once

#include <cstdint>
#include <vector>

namespace sprocket {

// Nanoseconds of the monotonic clock.
int64_t monotonic_ns();

enum class Phase : uint8_t { kOther, kForward, kBackward, kRecompute, kOptimizer, kSample };
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

// Where in the job a record was made.
struct Position {
  int64_t step = -1;
  Phase phase = Phase::kOther;
  int16_t layer = -1;  // -1: outside the blocks
};

struct Interval {
  Activity activity;
  const char* name;  // static storage: an operation's name such as "attention.local"
  Position position;
  int64_t begin_ns;
  int64_t end_ns;
};

class Timeline {
 public:
  // Position is kept whether or not intervals are recorded: communicators read it.
  Position position;

  void set_recording(bool recording) { recording_ = recording; }
  bool recording() const { return recording_; }

  // Removes and returns what was recorded, in order of end time.
  std::vector<Interval> take();

  class Scope {
   public:
    // `timeline` may be null: then nothing happens.
    Scope(Timeline* timeline, Activity activity, const char* name);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Timeline* timeline_;
  };

 private:
  struct Open {
    Activity activity;
    const char* name;
    int64_t begin_ns;
  };
  void enter(Activity activity, const char* name);
  void leave();
  void emit(const Open& open, int64_t end_ns);

  bool recording_ = false;
  std::vector<Open> open_;
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

// What a job says about itself while it runs: written by the job's thread, read by the thread that
// talks to the supervisor. A job without supervisor may have one that nobody reads, or none.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"
#include "runtime/control/control.pb.h"

namespace sprocket::control {

// What a rank is doing, each with a limit of its own (docs/operations.md).
enum class Section : uint8_t { kInit, kStep, kValidation, kCheckpoint, kSample, kEnd, kTeacher };
inline constexpr int kSections = 7;
const char* name_of(Section section);

// Of each communicator, in what a rank says of its past.
inline constexpr size_t kDumpedOperations = 64;

// A step that the job has done; of samples, an evaluation of the network by this rank's replica.
// Its times are of this rank.
struct StepDone {
  int64_t done = 0;    // of the whole job's steps, this one included
  int64_t total = 0;   // that the job is to do; 0: unknown
  double loss = 0;     // NaN: none
  int64_t tokens = 0;  // of all ranks; 0: unknown
  int64_t wall_ns = 0;
  int64_t exposed_ns = -1;  // communication that no compute hid; -1: not measured
};

class Pulse {
 public:
  Pulse();
  Pulse(const Pulse&) = delete;
  Pulse& operator=(const Pulse&) = delete;

  Section section() const;
  void enter(Section section);
  // Takes no longer than a few allocations, and waits for nothing.
  void step_done(const StepDone& step);
  void checkpoint_saved(int64_t step);
  // Where the job's files go; a relative path is one from the working folder.
  void writes_to(const std::string& folder);

  // Its operations are reported until forget(); it must live so long.
  void watch(const comm::Communicator& communicator);
  void forget(const comm::Communicator& communicator);

  // Without memory_bytes. The last operation of every watched communicator of several ranks.
  Heartbeat heartbeat() const;
  // Up to `last` operations of each.
  Dump dump(size_t last) const;

  // Both as they are now, for when the communicators are gone.
  void keep_last_words();
  // What was kept; empty: nothing.
  std::optional<LastWords> last_words() const;

 private:
  mutable std::mutex mutex_;
  Section section_ = Section::kInit;
  int64_t entered_ns_;
  StepDone last_{.done = -1};
  std::deque<StepTime> times_;
  int64_t checkpoint_step_ = -1;
  std::string folder_;
  std::vector<const comm::Communicator*> communicators_;
  std::optional<LastWords> last_words_;
};

// A section for a scope; then the former one again, unless an exception ends it. `pulse` may be
// null.
class SectionScope {
 public:
  SectionScope(Pulse* pulse, Section section);
  ~SectionScope();
  SectionScope(const SectionScope&) = delete;
  SectionScope& operator=(const SectionScope&) = delete;

 private:
  Pulse* pulse_;
  Section former_ = Section::kInit;
  int uncaught_at_birth_;
};

// Watches communicators for a scope, which they outlive; an exception that ends it makes the pulse
// keep its last words. `pulse` may be null.
class WatchScope {
 public:
  WatchScope(Pulse* pulse, std::vector<const comm::Communicator*> communicators);
  ~WatchScope();
  WatchScope(const WatchScope&) = delete;
  WatchScope& operator=(const WatchScope&) = delete;

 private:
  Pulse* pulse_;
  std::vector<const comm::Communicator*> communicators_;
  int uncaught_at_birth_;
};

}  // namespace sprocket::control

// Which rank the others wait for, step after step.
//
// The ranks of a job make the same steps, so their times are matched by the step's number. A rank's
// own time of a step is the step less its exposed communication, which is where it waits for the
// others (profile::StepParts). The rank with the longest own time is the one that they wait for,
// for as long as it takes more than the median of theirs. To match every operation by group and
// sequence would also say which one it was, but a step has thousands; the report of a run has them
// (docs/profile.md). What a rank does between two steps is in neither.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/control/control.pb.h"

namespace sprocket::launcher {

// Medians over the steps of the window in which the rank was the one.
struct Straggler {
  int rank = 0;
  double ratio = 0;         // its own time by the median of the others' own times
  double waited = 0;        // seconds of a step that the others waited for it
  double step_seconds = 0;  // of a step
};

struct StragglerChange {
  bool begins = false;
  Straggler straggler;
};

// The window is the last 20 steps, or more that take 5 s together. A rank is a straggler when it
// took 1.2 times as long as the median of the others, and they waited for a twentieth of the step,
// in two thirds of the window; it is none any more when it took 1.1 times as long in fewer than a
// half of it.
class StragglerWatch {
 public:
  explicit StragglerWatch(int ranks) : ranks_(ranks) {}

  // Steps that were told before are passed over, those that were not measured as well.
  void take(int rank, const control::Heartbeat& beat);

  const std::optional<Straggler>& now() const { return now_; }
  // Removes and returns what has begun and ended.
  std::vector<StragglerChange> take_changes() { return std::exchange(changes_, {}); }

 private:
  struct Times {
    double own = -1;  // -1: not told yet
    double exposed = 0;
  };
  struct Judged {
    int slowest = 0;
    double ratio = 1, waited = 0, wall = 0;
  };
  static Judged judge(const std::vector<Times>& step);
  void append(const Judged& step);
  // Of the steps of the window in which `rank` was the slowest by `ratio`; empty: fewer than
  // `share` of them.
  std::optional<Straggler> find(int rank, double ratio, double share) const;
  void conclude();

  const int ranks_;
  std::map<int64_t, std::vector<Times>> open_;  // steps that not all ranks have told
  int64_t newest_ = -1;                         // step that all have told
  std::deque<Judged> window_;
  double window_seconds_ = 0;
  std::optional<Straggler> now_;
  std::vector<StragglerChange> changes_;
};

}  // namespace sprocket::launcher

#include "base/timeline.h"

#include <chrono>
#include <utility>

namespace sprocket {

int64_t monotonic_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

const char* name_of(Phase phase) {
  switch (phase) {
    case Phase::kOther:
      return "other";
    case Phase::kForward:
      return "forward";
    case Phase::kBackward:
      return "backward";
    case Phase::kRecompute:
      return "recompute";
    case Phase::kOptimizer:
      return "optimizer";
    case Phase::kSample:
      return "sample";
  }
  return "?";
}

const char* name_of(Activity activity) {
  switch (activity) {
    case Activity::kCompute:
      return "compute";
    case Activity::kCommunicationWait:
      return "communication_wait";
    case Activity::kCopy:
      return "copy";
    case Activity::kDataWait:
      return "data_wait";
    case Activity::kCheckpoint:
      return "checkpoint";
    case Activity::kOther:
      return "other";
  }
  return "?";
}

std::vector<Interval> Timeline::take() { return std::exchange(intervals_, {}); }

void Timeline::emit(const Open& open, int64_t end_ns) {
  if (recording_ && end_ns > open.begin_ns) {
    intervals_.push_back({open.activity, open.name, position, open.begin_ns, end_ns});
  }
}

void Timeline::enter(Activity activity, const char* name) {
  const int64_t now = monotonic_ns();
  if (!open_.empty()) emit(open_.back(), now);
  open_.push_back({activity, name, now});
}

void Timeline::leave() {
  const int64_t now = monotonic_ns();
  emit(open_.back(), now);
  open_.pop_back();
  if (!open_.empty()) open_.back().begin_ns = now;
}

Timeline::Scope::Scope(Timeline* timeline, Activity activity, const char* name)
    : timeline_(timeline) {
  if (timeline_) timeline_->enter(activity, name);
}

Timeline::Scope::~Scope() {
  if (timeline_) timeline_->leave();
}

PhaseScope::PhaseScope(Timeline* timeline, Phase phase) : timeline_(timeline) {
  if (timeline_) former_ = std::exchange(timeline_->position.phase, phase);
}

PhaseScope::~PhaseScope() {
  if (timeline_) timeline_->position.phase = former_;
}

LayerScope::LayerScope(Timeline* timeline, int layer) : timeline_(timeline) {
  if (timeline_) former_ = std::exchange(timeline_->position.layer, static_cast<int16_t>(layer));
}

LayerScope::~LayerScope() {
  if (timeline_) timeline_->position.layer = former_;
}

}  // namespace sprocket

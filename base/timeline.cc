#include "base/timeline.h"

#include <algorithm>
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
    case Phase::kStudent:
      return "student";
    case Phase::kTeacher:
      return "teacher";
    case Phase::kFakeScore:
      return "fake_score";
    case Phase::kFakeScoreForward:
      return "fake_score_forward";
    case Phase::kFakeScoreBackward:
      return "fake_score_backward";
    case Phase::kFakeScoreRecompute:
      return "fake_score_recompute";
    case Phase::kFakeScoreOptimizer:
      return "fake_score_optimizer";
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

bool is_of_device(Activity activity) {
  switch (activity) {
    case Activity::kCompute:
    case Activity::kCommunicationWait:
    case Activity::kCopy:
    case Activity::kOther:
      return true;
    case Activity::kDataWait:
    case Activity::kCheckpoint:
      return false;
  }
  return false;
}

// Now, noted once for the interval that ends and the one that begins.
class Timeline::Present {
 public:
  explicit Present(const Timeline& timeline) : timeline_(timeline), host_ns_(monotonic_ns()) {}

  int64_t of(Activity activity) {
    if (!timeline_.device_ || !is_of_device(activity)) return host_ns_;
    if (!timeline_.recording_) return MomentSource::kNone;
    if (!noted_) moment_ = timeline_.device_->note();
    noted_ = true;
    return moment_;
  }

 private:
  const Timeline& timeline_;
  const int64_t host_ns_;
  bool noted_ = false;
  int64_t moment_ = MomentSource::kNone;
};

void Timeline::measure_by(std::unique_ptr<MomentSource> device) {
  while (ranges_ > 0) pop_range();
  device_ = std::move(device);
  for (Open& open : open_) {
    if (is_of_device(open.activity)) open.begin = MomentSource::kNone;
  }
  std::erase_if(intervals_,
                [](const Interval& interval) { return is_of_device(interval.activity); });
}

std::vector<Interval> Timeline::take() {
  std::vector<Interval> taken = std::exchange(intervals_, {});
  if (device_) settle(taken);
  return taken;
}

void Timeline::settle(std::vector<Interval>& taken) {
  device_->settle();
  for (Interval& interval : taken) {
    if (!is_of_device(interval.activity)) continue;
    interval.begin_ns = device_->time_of(interval.begin_ns);
    interval.end_ns = device_->time_of(interval.end_ns);
  }
  for (Interval& interval : taken) interval.end_ns = std::max(interval.begin_ns, interval.end_ns);
  std::erase_if(taken,
                [](const Interval& i) { return i.end_ns == i.begin_ns && i.work == Work{}; });
  std::stable_sort(taken.begin(), taken.end(),
                   [](const Interval& a, const Interval& b) { return a.end_ns < b.end_ns; });
  // The innermost scope runs; those around it begin anew when it closes.
  const bool runs = !open_.empty() && is_of_device(open_.back().activity) &&
                    open_.back().begin != MomentSource::kNone;
  device_->forget_before(runs ? open_.back().begin : INT64_MAX);
}

void Timeline::suspend(const Open& open, int64_t end) {
  if (recording_ && open.begin != MomentSource::kNone && end > open.begin) {
    intervals_.push_back({open.activity, open.name, position, open.begin, end, false, {}});
  }
}

// With work it is kept however short it is.
void Timeline::close(const Open& open, int64_t end) {
  const int64_t shortest = open.work == Work{} ? 1 : 0;
  if (recording_ && open.begin != MomentSource::kNone && end >= open.begin + shortest) {
    intervals_.push_back({open.activity, open.name, position, open.begin, end, true, open.work});
  }
}

void Timeline::enter(Activity activity, const char* name, const Work& work) {
  if (traced()) push_range(name);
  Present now(*this);
  if (!open_.empty()) suspend(open_.back(), now.of(open_.back().activity));
  open_.push_back({activity, name, now.of(activity), work});
}

void Timeline::leave() {
  Present now(*this);
  close(open_.back(), now.of(open_.back().activity));
  open_.pop_back();
  if (!open_.empty()) open_.back().begin = now.of(open_.back().activity);
  pop_range();
}

void Timeline::push_range(const char* name) {
  device_->push_range(name);
  ++ranges_;
}

void Timeline::pop_range() {
  if (ranges_ == 0) return;
  --ranges_;
  device_->pop_range();
}

Timeline::Scope::Scope(Timeline* timeline, Activity activity, const char* name)
    : timeline_(timeline) {
  if (timeline_) timeline_->enter(activity, name, {});
}

Timeline::Scope::~Scope() {
  if (timeline_) timeline_->leave();
}

namespace {

Phase of_fake_score(Phase phase) {
  switch (phase) {
    case Phase::kForward:
      return Phase::kFakeScoreForward;
    case Phase::kBackward:
      return Phase::kFakeScoreBackward;
    case Phase::kRecompute:
      return Phase::kFakeScoreRecompute;
    case Phase::kOptimizer:
      return Phase::kFakeScoreOptimizer;
    default:
      return phase;
  }
}

}  // namespace

PhaseScope::PhaseScope(Timeline* timeline, Phase phase) : timeline_(timeline) {
  if (!timeline_) return;
  former_ = std::exchange(timeline_->position.phase,
                          timeline_->trains_fake_score ? of_fake_score(phase) : phase);
}

PhaseScope::~PhaseScope() {
  if (timeline_) timeline_->position.phase = former_;
}

FakeScoreScope::FakeScoreScope(Timeline* timeline) : timeline_(timeline) {
  if (timeline_) timeline_->trains_fake_score = true;
}

FakeScoreScope::~FakeScoreScope() {
  if (timeline_) timeline_->trains_fake_score = false;
}

LayerScope::LayerScope(Timeline* timeline, int layer) : timeline_(timeline) {
  if (timeline_) former_ = std::exchange(timeline_->position.layer, static_cast<int16_t>(layer));
}

LayerScope::~LayerScope() {
  if (timeline_) timeline_->position.layer = former_;
}

}  // namespace sprocket

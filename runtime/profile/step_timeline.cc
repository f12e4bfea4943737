#include "runtime/profile/step_timeline.h"

#include <algorithm>
#include <string>

namespace sprocket::profile {
namespace {

constexpr int kOwnLane = 0, kOperationLane = 1;

double us(int64_t ns) { return 1e-3 * static_cast<double>(ns); }

void keep_longest(std::vector<TimelineSpan>& spans, size_t count) {
  if (spans.size() <= count) return;
  std::nth_element(
      spans.begin(), spans.begin() + static_cast<int64_t>(count), spans.end(),
      [](const TimelineSpan& a, const TimelineSpan& b) { return a.length_us > b.length_us; });
  spans.resize(count);
}

}  // namespace

StepTimeline step_timeline(std::span<const RankStep> ranks, std::span<const int64_t> offsets) {
  StepTimeline timeline;
  if (ranks.empty()) return timeline;
  const size_t count = std::min<size_t>(ranks.size(), kTimelineRanks);
  timeline.step = ranks.front().step.step;
  NameTable names;
  for (size_t r = 0; r < count; ++r) {
    const RecordedStep& step = ranks[r].step;
    RankTimeline& own = timeline.ranks.emplace_back();
    own.rank = ranks[r].rank;
    own.offset_us = us(step.begin_ns - offsets[r] - ranks.front().step.begin_ns);
    for (const RecordedInterval& interval : step.intervals) {
      own.spans.push_back(
          {kOwnLane, static_cast<int>(names.number_of((*ranks[r].names)[interval.name])),
           static_cast<int>(interval.phase), interval.layer, us(interval.begin_ns - step.begin_ns),
           us(interval.end_ns - interval.begin_ns)});
    }
    for (const RecordedOperation& op : step.operations) {
      if (!op.completed()) continue;
      const std::string name =
          ranks[r].header->groups(op.group).name() + " " + comm::name_of(op.op);
      own.spans.push_back({kOperationLane, static_cast<int>(names.number_of(name)),
                           static_cast<int>(op.phase), op.layer, us(op.start_ns - step.begin_ns),
                           us(op.duration_ns())});
    }
    keep_longest(own.spans, static_cast<size_t>(kTimelineSpans) / count);
    std::stable_sort(
        own.spans.begin(), own.spans.end(),
        [](const TimelineSpan& a, const TimelineSpan& b) { return a.begin_us < b.begin_us; });
  }
  for (uint32_t n = 0; n < names.size(); ++n) timeline.names.push_back(names[n]);
  return timeline;
}

}  // namespace sprocket::profile

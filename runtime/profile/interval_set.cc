#include "runtime/profile/interval_set.h"

#include <algorithm>

namespace sprocket::profile {

IntervalSet::IntervalSet(std::vector<Span> spans) {
  std::erase_if(spans, [](const Span& span) { return span.end <= span.begin; });
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  for (const Span& span : spans) {
    if (!spans_.empty() && span.begin <= spans_.back().end) {
      spans_.back().end = std::max(spans_.back().end, span.end);
    } else {
      spans_.push_back(span);
    }
  }
}

int64_t IntervalSet::length() const {
  int64_t sum = 0;
  for (const Span& span : spans_) sum += span.end - span.begin;
  return sum;
}

int64_t IntervalSet::length_within(Span span) const {
  auto at = std::partition_point(spans_.begin(), spans_.end(),
                                 [&](const Span& other) { return other.end <= span.begin; });
  int64_t sum = 0;
  for (; at != spans_.end() && at->begin < span.end; ++at) {
    sum += std::min(at->end, span.end) - std::max(at->begin, span.begin);
  }
  return sum;
}

IntervalSet intersect(const IntervalSet& a, const IntervalSet& b) {
  std::vector<Span> common;
  auto i = a.spans().begin();
  auto j = b.spans().begin();
  while (i != a.spans().end() && j != b.spans().end()) {
    common.push_back({std::max(i->begin, j->begin), std::min(i->end, j->end)});
    if (i->end < j->end) {
      ++i;
    } else {
      ++j;
    }
  }
  return IntervalSet(std::move(common));
}

IntervalSet subtract(const IntervalSet& a, const IntervalSet& b) {
  std::vector<Span> rest;
  auto j = b.spans().begin();
  for (Span span : a.spans()) {
    while (j != b.spans().end() && j->end <= span.begin) ++j;
    for (auto k = j; k != b.spans().end() && k->begin < span.end; ++k) {
      rest.push_back({span.begin, k->begin});
      span.begin = std::max(span.begin, k->end);
    }
    rest.push_back(span);
  }
  return IntervalSet(std::move(rest));
}

}  // namespace sprocket::profile

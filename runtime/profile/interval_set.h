// Sets of moments as sorted, disjoint, non-empty half-open intervals: the arithmetic of the report.
#pragma once

#include <cstdint>
#include <vector>

namespace sprocket::profile {

struct Span {
  int64_t begin = 0;
  int64_t end = 0;
  bool operator==(const Span&) const = default;
};

class IntervalSet {
 public:
  IntervalSet() = default;
  // The union; spans may overlap, touch, come in any order or be empty (end <= begin: ignored).
  explicit IntervalSet(std::vector<Span> spans);

  const std::vector<Span>& spans() const { return spans_; }
  // Sum of the lengths.
  int64_t length() const;
  // Of what lies within the span.
  int64_t length_within(Span span) const;
  bool operator==(const IntervalSet&) const = default;

 private:
  std::vector<Span> spans_;
};

IntervalSet intersect(const IntervalSet& a, const IntervalSet& b);
// a without b.
IntervalSet subtract(const IntervalSet& a, const IntervalSet& b);

}  // namespace sprocket::profile

#include "parallel/comm/argument_checks.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/error.h"

namespace sprocket::comm {
namespace {

std::string prefix(const CallSite& site) {
  return fmt::format("[rank {}/{} {}] {}", site.rank, site.size, site.communicator,
                     name_of(site.op));
}

struct Range {
  const char* begin;
  const char* end;
};

std::vector<Range> ranges_of(const Buffer& buffer, std::span<const Segment> segments) {
  const auto element = static_cast<int64_t>(size_of(buffer.dtype));
  std::vector<Range> ranges;
  for (const auto& segment : segments) {
    if (segment.count == 0) continue;
    const char* begin = static_cast<const char*>(buffer.data) + segment.offset * element;
    ranges.push_back({begin, begin + segment.count * element});
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  return ranges;
}

// Both sorted; those within `a` and within `b` do not matter here.
bool overlap(std::span<const Range> a, std::span<const Range> b) {
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (a[i].end <= b[j].begin) {
      ++i;
    } else if (b[j].end <= a[i].begin) {
      ++j;
    } else {
      return true;
    }
  }
  return false;
}

int64_t check_segments(const CallSite& site, const char* direction, const Buffer& buffer,
                       std::span<const Segment> segments) {
  std::vector<bool> seen(site.size, false);
  int64_t elements = 0;
  for (const auto& [peer, offset, count] : segments) {
    SPROCKET_CHECK(peer >= 0 && peer < site.size,
                   "{}: expected the peer of a {} segment in 0..{}, found {}", prefix(site),
                   direction, site.size - 1, peer);
    SPROCKET_CHECK(
        count >= 0 && offset >= 0 && offset <= buffer.count - count,
        "{}: {} segment of peer {}: offset {} and count {} leave the buffer of {} elements",
        prefix(site), direction, peer, offset, count, buffer.count);
    if (count == 0) continue;
    SPROCKET_CHECK(!seen[peer],
                   "{}: expected at most one {} segment per peer, found two of peer {}",
                   prefix(site), direction, peer);
    seen[peer] = true;
    elements += count;
  }
  return elements;
}

int64_t own_count(const CallSite& site, std::span<const Segment> segments) {
  for (const auto& segment : segments) {
    if (segment.peer == site.rank && segment.count > 0) return segment.count;
  }
  return 0;
}

}  // namespace

void check_buffer(const CallSite& site, const char* what, const Buffer& buffer) {
  SPROCKET_CHECK(buffer.count >= 0, "{}: {} has {} elements", prefix(site), what, buffer.count);
  SPROCKET_CHECK(buffer.data != nullptr || buffer.count == 0,
                 "{}: {} has {} elements and no memory", prefix(site), what, buffer.count);
}

void check_counts(const CallSite& site, const Buffer& own, const Buffer& whole,
                  std::span<const int64_t> counts) {
  check_buffer(site, "the own part", own);
  check_buffer(site, "the buffer of all parts", whole);
  SPROCKET_CHECK(own.dtype == whole.dtype, "{}: expected one dtype, found {} and {}", prefix(site),
                 name_of(own.dtype), name_of(whole.dtype));
  SPROCKET_CHECK(static_cast<int>(counts.size()) == site.size,
                 "{}: expected {} counts, one per rank, found {}", prefix(site), site.size,
                 counts.size());
  for (int r = 0; r < site.size; ++r) {
    SPROCKET_CHECK(counts[r] >= 0, "{}: rank {} has count {}", prefix(site), r, counts[r]);
  }
  const int64_t sum = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  SPROCKET_CHECK(own.count == counts[site.rank],
                 "{}: expected {} elements in the own part, found {}", prefix(site),
                 counts[site.rank], own.count);
  SPROCKET_CHECK(whole.count == sum, "{}: expected {} elements, the sum of the counts, found {}",
                 prefix(site), sum, whole.count);
  const int64_t offset = std::accumulate(counts.begin(), counts.begin() + site.rank, int64_t{0});
  const Segment all_of_own{site.rank, 0, own.count}, all_of_whole{0, 0, whole.count};
  const auto own_range = ranges_of(own, {&all_of_own, 1});
  const auto whole_range = ranges_of(whole, {&all_of_whole, 1});
  const bool in_place = own.data == static_cast<char*>(whole.data) + offset * size_of(whole.dtype);
  SPROCKET_CHECK(in_place || !overlap(own_range, whole_range),
                 "{}: the buffers overlap, and the own part is not at its place", prefix(site));
}

void check_all_to_all(const CallSite& site, const Buffer& in, const Buffer& out) {
  check_buffer(site, "in", in);
  check_buffer(site, "out", out);
  SPROCKET_CHECK(in.dtype == out.dtype, "{}: expected one dtype, found {} and {}", prefix(site),
                 name_of(in.dtype), name_of(out.dtype));
  SPROCKET_CHECK(in.count == out.count && in.count % site.size == 0,
                 "{}: expected two buffers of {} equal parts, found {} and {} elements",
                 prefix(site), site.size, in.count, out.count);
  const Segment all{0, 0, in.count};
  SPROCKET_CHECK(!overlap(ranges_of(in, {&all, 1}), ranges_of(out, {&all, 1})),
                 "{}: the buffers overlap", prefix(site));
}

void check_root(const CallSite& site, int root) {
  SPROCKET_CHECK(root >= 0 && root < site.size, "{}: expected a root in 0..{}, found {}",
                 prefix(site), site.size - 1, root);
}

void check_exchange(const CallSite& site, const Buffer& send,
                    std::span<const Segment> send_segments, const Buffer& receive,
                    std::span<const Segment> receive_segments) {
  check_buffer(site, "the send buffer", send);
  check_buffer(site, "the receive buffer", receive);
  const int64_t sent = check_segments(site, "send", send, send_segments);
  const int64_t received = check_segments(site, "receive", receive, receive_segments);
  SPROCKET_CHECK(sent == 0 || received == 0 || send.dtype == receive.dtype,
                 "{}: expected one dtype, found {} to send and {} to receive", prefix(site),
                 name_of(send.dtype), name_of(receive.dtype));
  const int64_t to_self = own_count(site, send_segments);
  const int64_t from_self = own_count(site, receive_segments);
  SPROCKET_CHECK(to_self == from_self, "{}: sends {} elements to itself and receives {}",
                 prefix(site), to_self, from_self);
  const auto targets = ranges_of(receive, receive_segments);
  for (size_t i = 1; i < targets.size(); ++i) {
    SPROCKET_CHECK(targets[i - 1].end <= targets[i].begin, "{}: two receive segments overlap",
                   prefix(site));
  }
  // Sent segments may overlap each other; merged, they can be compared in one sweep.
  std::vector<Range> sources;
  for (const auto& range : ranges_of(send, send_segments)) {
    if (!sources.empty() && range.begin <= sources.back().end) {
      sources.back().end = std::max(sources.back().end, range.end);
    } else {
      sources.push_back(range);
    }
  }
  SPROCKET_CHECK(!overlap(sources, targets), "{}: a receive segment overlaps what is sent",
                 prefix(site));
}

}  // namespace sprocket::comm

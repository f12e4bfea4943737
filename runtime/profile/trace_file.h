// trace.json: the recorded events in the Trace Event Format that ui.perfetto.dev and
// chrome://tracing read. A rank is a process; its first thread has its own activities, the next
// ones its operations in flight; arrows join the parts of one operation. Format: "Trace Event
// Format", docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
#pragma once

#include <cstdint>
#include <fstream>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "runtime/profile/operation_matching.h"

namespace sprocket::profile {

class TraceFile {
 public:
  // Replaces a file that is there; holds at most `most_events`, in whole steps, or one step of the
  // first ranks when all of them are too many. Throws OutputError, as all of it does.
  TraceFile(std::string path, int64_t most_events);

  // offsets: of the ranks' clocks (clock_offsets.h).
  void add(std::span<const RankStep> ranks, std::span<const MatchedOperation> operations,
           std::span<const int64_t> offsets);
  void close();

  int64_t steps() const { return steps_; }
  int64_t events() const { return events_; }
  bool full() const { return full_; }  // a step, or some rank's part of it, did not fit
  int64_t ranks() const { return std::ssize(named_); }

 private:
  void add_event(const std::string& json);
  void name_rank(const RankStep& rank);
  void write();

  const std::string path_;
  const int64_t most_events_;
  std::ofstream file_;
  std::string buffer_;
  std::set<int> named_;
  int64_t steps_ = 0, events_ = 0, flows_ = 0;
  bool full_ = false, first_ = true;
  int64_t zero_ns_ = 0;  // of the first rank's clock: the trace begins there
};

}  // namespace sprocket::profile

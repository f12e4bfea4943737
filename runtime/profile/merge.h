// From what the ranks recorded to a report: step by step, so that memory does not grow with the
// steps.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/profile/report.h"

namespace sprocket::profile {

struct MergeOptions {
  std::string trace;  // path of trace.json; empty: none
  int64_t most_trace_events = 1'000'000;
};

// A report of the events in `folder` (event_file_path), with all that follows from them: everything
// but remote_kv, prediction and curves. Ranks whose files are missing or damaged are named in
// window.notes, and what is left is reported. Throws InputError when there is no file that can be
// read, or files of different runs; OutputError for the trace.
Report merge_events(const std::string& folder, const MergeOptions& options);

}  // namespace sprocket::profile

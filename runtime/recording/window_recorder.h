// Writes a rank's part of a window to its file (runtime/profile/event_file.h).
#pragma once

#include <string>

#include "runtime/profile/event_file.h"
#include "runtime/recording/step_collector.h"

namespace sprocket::runtime {

// What the recorder does not know of a step.
struct StepFacts {
  int64_t step = 0;
  int64_t tokens = 0, all_tokens = 0;                     // of this rank, of the job
  double dense_equivalent_flops = 0, executed_flops = 0;  // of the job
};

class WindowRecorder {
 public:
  // `header` has everything but the groups. Throws OutputError, as all of it does.
  WindowRecorder(const std::string& path, profile::events::Header header,
                 const StepCollector& collector);

  // The collector's last step.
  void append(const StepFacts& facts);
  void end(profile::events::End memory);

 private:
  const StepCollector& collector_;
  profile::EventWriter file_;
  int64_t recording_ns_ = 0;  // that the last step took to collect and write
};

}  // namespace sprocket::runtime

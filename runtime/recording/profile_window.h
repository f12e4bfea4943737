// The windows of steps that a job records, and the files that come of them (docs/profile.md).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "configs/job.pb.h"
#include "parallel/mesh.h"
#include "runtime/profile/report.h"
#include "runtime/recording/job_header.h"
#include "runtime/recording/window_recorder.h"

namespace sprocket::runtime {

struct WindowPlan {
  int64_t steps = 0;     // of a window; 0: none
  int64_t warmup = 0;    // steps before the first one
  int64_t interval = 0;  // from the beginning of a window to that of the next one; 0: one window
  // Every other step is not recorded, and a window takes twice as many: what recording costs.
  bool alternate = false;
  int64_t trace_events = 0;
};

// What `count` says of the windows: `done` steps of this start of the job have been made.
struct WindowPlace {
  bool inside = false;
  bool recorded = true;  // false: one of an alternating window's other steps
  bool first = false;    // the first of its window
  bool last = false;
};
WindowPlace window_place(const WindowPlan& plan, int64_t done);

class ProfileWindow {
 public:
  // Files go to `folder`, events to its folder `events`; profile.json to `json`. `mesh` and
  // `collector` must outlive it. Every rank must see the folder.
  ProfileWindow(const WindowPlan& plan, const parallel::Mesh& mesh, const StepCollector& collector,
                std::string folder, std::string json);

  // Before a step: whether the collector is to record it.
  bool records_next() const;
  // After it. `header` is called at the first step of a window, with its steps set. What cannot be
  // written ends this rank's records with a warning, and nothing else: a job goes on without.
  void append(const StepFacts& facts, const std::function<profile::events::Header()>& header);
  // Whether the window that append() went to is full: then finish() is due.
  bool full() const { return full_; }
  bool open() const { return open_; }

  // Ends the window, which may lack steps, and has rank 0 make the report; `complete_report` adds
  // what events do not tell, before the files are written. Collective. Empty on other ranks.
  // All throw OutputError when rank 0 cannot write, InputError when there are no records at all.
  std::optional<profile::Report> finish(
      const profile::events::End& memory,
      const std::function<void(profile::Report&)>& complete_report);

 private:
  void open_files(const std::function<profile::events::Header()>& header);

  const WindowPlan plan_;
  const parallel::Mesh& mesh_;
  const StepCollector& collector_;
  const std::string folder_, json_;
  // Null: no window is open, or it was given up here.
  std::unique_ptr<WindowRecorder> recorder_;
  int64_t done_ = 0;
  bool open_ = false;  // the same on all ranks
  bool full_ = false;
};

// profile.json, and report.html beside the events; rank 0 alone. Throws OutputError.
void write_report(const profile::Report& report, const std::string& folder,
                  const std::string& json);

}  // namespace sprocket::runtime

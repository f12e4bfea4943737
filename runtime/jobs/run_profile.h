// The windows of a run that are recorded, and the report at its end.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "configs/job.pb.h"
#include "parallel/mesh.h"
#include "runtime/jobs/profile_only.h"
#include "runtime/recording/profile_window.h"

namespace sprocket::runtime {

class RunProfile {
 public:
  // The windows of job.profile in the run's folder, or, with `only`, its one window. All must
  // outlive the object.
  RunProfile(const config::Job& job, const parallel::Mesh& mesh, const StepCollector& collector,
             const std::optional<ProfileOnly>& only);

  // As ProfileWindow's.
  bool records_next() const { return window_.records_next(); }
  bool full() const { return window_.full(); }
  bool open() const { return window_.open(); }
  // kind: of the job ("train", …); shape: of the largest videos of the step.
  void append(const StepFacts& facts, const std::string& kind, const data::LatentShape& shape,
              int threads);
  // Collective. A run goes on where the report cannot be written, with a warning; a job that is
  // started for its profile throws OutputError. `complete` adds what events do not tell.
  void finish(const profile::events::End& memory,
              const std::function<void(profile::Report&)>& complete);
  // Whether finish() was called.
  bool done() const { return done_; }
  // Rank 0 prints the newest report, or why there is none.
  void print() const;

 private:
  struct Place {
    WindowPlan plan;
    std::string folder, json;
  };
  static Place place_of(const config::Job& job, const std::optional<ProfileOnly>& only);

  const config::Job& job_;
  const parallel::Mesh& mesh_;
  const bool only_;
  const Place place_;
  ProfileWindow window_;
  std::optional<profile::Report> report_;  // of the newest window; rank 0
  bool done_ = false;
};

}  // namespace sprocket::runtime

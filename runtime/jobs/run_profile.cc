#include "runtime/jobs/run_profile.h"

#include <filesystem>

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "runtime/profile/report_text.h"
#include "runtime/recording/curves.h"

namespace sprocket::runtime {

namespace fs = std::filesystem;

RunProfile::Place RunProfile::place_of(const config::Job& job,
                                       const std::optional<ProfileOnly>& only) {
  const config::Profile& profile = job.profile();
  if (only) {
    return {{only->steps, only->warmup, 0, /*alternate=*/true, profile.trace_events()},
            only->folder,
            (fs::path(only->folder) / "profile.json").string()};
  }
  const fs::path run = job.output().directory();
  return {{profile.steps(), profile.warmup(), profile.interval(), /*alternate=*/false,
           profile.trace_events()},
          (run / "profile").string(),
          (run / "profile.json").string()};
}

RunProfile::RunProfile(const config::Job& job, const parallel::Mesh& mesh,
                       const StepCollector& collector, const std::optional<ProfileOnly>& only)
    : job_(job),
      mesh_(mesh),
      only_(only.has_value()),
      place_(place_of(job, only)),
      window_(place_.plan, mesh, collector, place_.folder, place_.json) {}

void RunProfile::append(const StepFacts& facts, const std::string& kind,
                        const data::LatentShape& shape, int threads) {
  window_.append(facts, [&] {
    return job_header(job_, latent_extents(shape), mesh_,
                      {kind, threads, facts.step, place_.plan.steps});
  });
}

void RunProfile::finish(const profile::events::End& memory,
                        const std::function<void(profile::Report&)>& complete) {
  done_ = true;
  try {
    report_ = window_.finish(memory, [&](profile::Report& report) {
      complete(report);
      if (only_) return;
      const fs::path run = job_.output().directory();
      report.curves = read_curves((run / "metrics.jsonl").string());
    });
  } catch (const OutputError& error) {
    // A run is worth more than its report. All ranks are here.
    if (only_) throw;
    if (mesh_.world().rank() == 0) spdlog::warn("no report: {}", error.what());
  }
}

void RunProfile::print() const {
  if (mesh_.world().rank() != 0) return;
  if (report_) {
    fmt::print("{}", profile::report_text(*report_));
  } else if (place_.plan.steps > 0) {
    fmt::print(
        "\nNo report: the run ended within the {} steps before its window (profile.warmup).\n",
        place_.plan.warmup);
  }
}

}  // namespace sprocket::runtime

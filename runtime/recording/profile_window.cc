#include "runtime/recording/profile_window.h"

#include <filesystem>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "runtime/jobs/rank_agreement.h"
#include "runtime/media/output_file.h"
#include "runtime/profile/html_report.h"
#include "runtime/profile/merge.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;

std::string events_folder(const std::string& folder) { return folder + "/events"; }

// Events of a former window, of as many ranks or more.
void make_empty_folder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw OutputError(fmt::format("{}: cannot be created: {}", folder, error.message()));
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".events") fs::remove(entry.path(), error);
  }
  if (error) throw OutputError(fmt::format("{}: cannot be emptied: {}", folder, error.message()));
}

}  // namespace

WindowPlace window_place(const WindowPlan& plan, int64_t done) {
  if (plan.steps == 0 || done < plan.warmup) return {};
  const int64_t length = plan.alternate ? 2 * plan.steps : plan.steps;
  const int64_t since =
      plan.interval > 0 ? (done - plan.warmup) % plan.interval : done - plan.warmup;
  if (since >= length) return {};
  // Not recorded, recorded, recorded, not recorded, …: a drift over the window is in both alike.
  const bool recorded = !plan.alternate || since % 4 == 1 || since % 4 == 2;
  return {true, recorded, since == 0, since + 1 == length};
}

ProfileWindow::ProfileWindow(const WindowPlan& plan, const parallel::Mesh& mesh,
                             const StepCollector& collector, std::string folder, std::string json)
    : plan_(plan),
      mesh_(mesh),
      collector_(collector),
      folder_(std::move(folder)),
      json_(std::move(json)) {}

bool ProfileWindow::records_next() const { return window_place(plan_, done_).recorded; }

void ProfileWindow::append(const StepFacts& facts,
                           const std::function<profile::events::Header()>& header) {
  const WindowPlace place = window_place(plan_, done_++);
  if (!place.inside) return;
  full_ = place.last;
  try {
    if (place.first) open_files(header);
    if (recorder_) recorder_->append(facts);
  } catch (const OutputError& error) {
    recorder_.reset();
    spdlog::warn("the profile lacks rank {} from step {} on: {}", mesh_.world().rank(), facts.step,
                 error.what());
  }
}

void ProfileWindow::open_files(const std::function<profile::events::Header()>& header) {
  open_ = true;
  const std::string folder = events_folder(folder_);
  run_on_all(mesh_.world(), [&] {
    if (mesh_.world().rank() == 0) make_empty_folder(folder);
  });
  recorder_ = std::make_unique<WindowRecorder>(
      profile::event_file_path(folder, mesh_.world().rank()), header(), collector_);
}

std::optional<profile::Report> ProfileWindow::finish(
    const profile::events::End& memory,
    const std::function<void(profile::Report&)>& complete_report) {
  std::optional<profile::Report> report;
  open_ = full_ = false;
  try {
    if (recorder_) recorder_->end(memory);
  } catch (const OutputError& error) {
    spdlog::warn("the profile lacks the end of rank {}: {}", mesh_.world().rank(), error.what());
  }
  recorder_.reset();
  mesh_.world().barrier();
  run_on_all(mesh_.world(), [&] {
    if (mesh_.world().rank() != 0) return;
    report = profile::merge_events(
        events_folder(folder_),
        {plan_.trace_events > 0 ? folder_ + "/trace.json" : "", plan_.trace_events});
    complete_report(*report);
    write_report(*report, folder_, json_);
  });
  return report;
}

void write_report(const profile::Report& report, const std::string& folder,
                  const std::string& json) {
  const auto write = [](const std::string& path, const std::string& text) {
    media::write_output_file(path, std::as_bytes(std::span(text)));
  };
  const std::string text = profile::report_json(report);
  write(json, text);
  write(folder + "/report.html", profile::html_report(text));
}

}  // namespace sprocket::runtime

#include "runtime/jobs/job_saves.h"

#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/timeline.h"
#include "runtime/jobs/rank_agreement.h"

namespace sprocket::runtime {

SavePolicy save_policy(const config::Output& output) {
  return {output.asynchronous_saves(),
          output.failed_save() == config::Output::STOP,
          {output.keep_checkpoints(), output.keep_every()}};
}

JobSaves::JobSaves(comm::Communicator& world, const std::string& run_folder,
                   const SavePolicy& policy, std::function<void()> before_log,
                   control::Pulse* pulse)
    : policy_(policy),
      timeline_(world.options().timeline),
      pulse_(pulse),
      before_log_(std::move(before_log)),
      logs_(world.rank() == 0),
      saver_(world, run_folder, policy.retention) {}

template <class Function>
auto JobSaves::counted(Function&& function) {
  const Timeline::Scope scope(timeline_, Activity::kCheckpoint, "checkpoint");
  const int64_t began_ns = monotonic_ns();
  auto result = function();
  const int64_t ns = monotonic_ns() - began_ns;
  stall_ns_ += ns;
  stall_of_newest_ns_ += ns;
  return result;
}

void JobSaves::begin(const CheckpointState& state,
                     const std::function<CheckpointTensors()>& tensors) {
  const control::SectionScope section(pulse_, control::Section::kCheckpoint);
  wait(policy_.stop_on_failure);
  began_ns_ = monotonic_ns();
  stall_of_newest_ns_ = 0;
  ended_ = counted([&]() -> std::optional<SaveOutcome> {
    if (!policy_.asynchronous) return saver_.save(state, tensors());
    saver_.begin(state, tensors());
    return std::nullopt;
  });
}

void JobSaves::look() {
  if (saver_.under_way()) ended_ = counted([this] { return saver_.poll(); });
  if (const auto ended = std::exchange(ended_, std::nullopt))
    close(*ended, policy_.stop_on_failure);
}

void JobSaves::finish() { wait(true); }

void JobSaves::guard(const std::function<void()>& job) {
  try {
    job();
  } catch (const AgreedError&) {
    wait(false);
    throw;
  }
}

void JobSaves::wait(bool throws) {
  const control::SectionScope section(pulse_, control::Section::kCheckpoint);
  if (saver_.under_way()) ended_ = counted([this] { return saver_.finish(); });
  if (const auto ended = std::exchange(ended_, std::nullopt)) close(*ended, throws);
}

void JobSaves::close(const SaveOutcome& outcome, bool throws) {
  if (!outcome.error) {
    newest_ = outcome.path;
    if (pulse_) pulse_->checkpoint_saved(outcome.step);
    if (!logs_) return;
    before_log_();
    spdlog::info("saved {} in {:.2f} s, of which training waited {:.3f} s", outcome.path,
                 1e-9 * static_cast<double>(monotonic_ns() - began_ns_),
                 1e-9 * static_cast<double>(stall_of_newest_ns_));
    return;
  }
  try {
    std::rethrow_exception(outcome.error);
  } catch (const InternalError&) {
    throw;
  } catch (const std::exception& error) {
    if (throws) throw;
    ++failed_;
    if (!logs_) return;
    before_log_();
    spdlog::warn("step {} was not saved, the job goes on: {}", outcome.step, error.what());
  }
}

double JobSaves::take_stall_seconds() {
  return 1e-9 * static_cast<double>(std::exchange(stall_ns_, 0));
}

}  // namespace sprocket::runtime

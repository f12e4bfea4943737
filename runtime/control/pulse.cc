#include "runtime/control/pulse.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <utility>

#include "base/timeline.h"
#include "parallel/comm/recorder.h"

namespace sprocket::control {
namespace {

// Of a heartbeat.
constexpr size_t kStepTimes = 64;

int64_t milliseconds_since(int64_t ns) {
  return std::max<int64_t>(0, monotonic_ns() - ns) / 1'000'000;
}

void describe(const comm::Communicator& communicator, const comm::OpRecord& record,
              Operation& operation) {
  operation.set_communicator(communicator.name());
  operation.set_leader(communicator.member_world_ranks().front());
  operation.set_ranks(communicator.size());
  operation.set_sequence(record.sequence);
  operation.set_name(comm::name_of(record.op));
  // So are those that failed.
  const bool unfinished = record.state != comm::OpState::kCompleted;
  operation.set_unfinished(unfinished);
  operation.set_step(record.position.step);
  operation.set_phase(name_of(record.position.phase));
  operation.set_layer(record.position.layer);
  operation.set_age_ms(milliseconds_since(unfinished ? record.enqueue_ns : record.end_ns));
  operation.set_bytes(record.bytes_sent + record.bytes_received);
}

}  // namespace

const char* name_of(Section section) {
  switch (section) {
    case Section::kInit:
      return "init";
    case Section::kStep:
      return "step";
    case Section::kValidation:
      return "validation";
    case Section::kCheckpoint:
      return "checkpoint";
    case Section::kSample:
      return "sample";
    case Section::kEnd:
      return "end";
    case Section::kTeacher:
      return "teacher";
  }
  return "?";
}

Pulse::Pulse() : entered_ns_(monotonic_ns()) {}

Section Pulse::section() const {
  const std::lock_guard lock(mutex_);
  return section_;
}

void Pulse::enter(Section section) {
  const std::lock_guard lock(mutex_);
  section_ = section;
  entered_ns_ = monotonic_ns();
}

void Pulse::step_done(const StepDone& step) {
  StepTime time;
  time.set_step(step.done);
  time.set_wall_us(step.wall_ns / 1000);
  if (step.exposed_ns >= 0) time.set_exposed_us(step.exposed_ns / 1000);
  const std::lock_guard lock(mutex_);
  last_ = step;
  if (times_.size() == kStepTimes) times_.pop_front();
  times_.push_back(std::move(time));
}

void Pulse::checkpoint_saved(int64_t step) {
  const std::lock_guard lock(mutex_);
  checkpoint_step_ = step;
}

void Pulse::writes_to(const std::string& folder) {
  std::string path = std::filesystem::absolute(folder).lexically_normal().string();
  const std::lock_guard lock(mutex_);
  folder_ = std::move(path);
}

void Pulse::watch(const comm::Communicator& communicator) {
  const std::lock_guard lock(mutex_);
  if (communicator.size() > 1) communicators_.push_back(&communicator);
}

void Pulse::forget(const comm::Communicator& communicator) {
  const std::lock_guard lock(mutex_);
  std::erase(communicators_, &communicator);
}

Heartbeat Pulse::heartbeat() const {
  const std::lock_guard lock(mutex_);
  Heartbeat heartbeat;
  heartbeat.set_section(static_cast<int>(section_));
  heartbeat.set_section_age_ms(milliseconds_since(entered_ns_));
  heartbeat.set_step(last_.done);
  heartbeat.set_loss(last_.loss);
  if (last_.total > 0) heartbeat.set_total_steps(last_.total);
  if (last_.tokens > 0) heartbeat.set_tokens(last_.tokens);
  for (const StepTime& time : times_) *heartbeat.add_step_time() = time;
  heartbeat.set_checkpoint_step(checkpoint_step_);
  if (!folder_.empty()) heartbeat.set_folder(folder_);
  for (const comm::Communicator* communicator : communicators_) {
    const comm::Recorder& recorder = communicator->recorder();
    const auto records = recorder.since(recorder.next_sequence() - 1);
    if (!records.empty()) describe(*communicator, records.back(), *heartbeat.add_operation());
  }
  return heartbeat;
}

Dump Pulse::dump(size_t last) const {
  const std::lock_guard lock(mutex_);
  Dump dump;
  for (const comm::Communicator* communicator : communicators_) {
    const comm::Recorder& recorder = communicator->recorder();
    for (const comm::OpRecord& record :
         recorder.since(recorder.next_sequence() - static_cast<int64_t>(last))) {
      describe(*communicator, record, *dump.add_operation());
    }
  }
  return dump;
}

void Pulse::keep_last_words() {
  LastWords words;
  *words.mutable_heartbeat() = heartbeat();
  *words.mutable_dump() = dump(kDumpedOperations);
  const std::lock_guard lock(mutex_);
  last_words_ = std::move(words);
}

std::optional<LastWords> Pulse::last_words() const {
  const std::lock_guard lock(mutex_);
  return last_words_;
}

SectionScope::SectionScope(Pulse* pulse, Section section)
    : pulse_(pulse), uncaught_at_birth_(std::uncaught_exceptions()) {
  if (!pulse_) return;
  former_ = pulse_->section();
  pulse_->enter(section);
}

SectionScope::~SectionScope() {
  // What an exception ends is where the job's last words are from.
  if (pulse_ && std::uncaught_exceptions() == uncaught_at_birth_) pulse_->enter(former_);
}

WatchScope::WatchScope(Pulse* pulse, std::vector<const comm::Communicator*> communicators)
    : pulse_(pulse),
      communicators_(std::move(communicators)),
      uncaught_at_birth_(std::uncaught_exceptions()) {
  if (!pulse_) return;
  for (const comm::Communicator* communicator : communicators_) pulse_->watch(*communicator);
}

WatchScope::~WatchScope() {
  if (!pulse_) return;
  if (std::uncaught_exceptions() > uncaught_at_birth_) pulse_->keep_last_words();
  for (const comm::Communicator* communicator : communicators_) pulse_->forget(*communicator);
}

}  // namespace sprocket::control

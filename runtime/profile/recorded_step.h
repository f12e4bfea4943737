// One step of one rank, as it was recorded: what a rank's file holds (events.proto), unpacked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/timeline.h"
#include "parallel/comm/recorder.h"

namespace sprocket::profile {

struct RecordedInterval {
  Activity activity = Activity::kOther;
  Phase phase = Phase::kOther;
  int16_t layer = -1;  // -1: outside the blocks
  uint32_t name = 0;   // of the file's names
  int64_t begin_ns = 0, end_ns = 0;
  bool closes = true;  // its scope's last one
  bool operator==(const RecordedInterval&) const = default;
};

struct RecordedOperation {
  int32_t group = 0;  // of the header's groups
  comm::OpKind op = comm::OpKind::kBarrier;
  Phase phase = Phase::kOther;
  int16_t layer = -1;
  int64_t sequence = 0;
  int64_t start_ns = 0, end_ns = 0;  // end < start: not completed
  int64_t sent_bytes = 0, messages = 0;
  int64_t volume_bytes = 0;   // the bytes of busbw (docs/profile.md)
  int32_t last_peer = -1;     // world rank whose message came last; -1: unknown
  int64_t last_alone_ns = 0;  // for so long it alone was missing
  bool completed() const { return end_ns >= start_ns; }
  int64_t duration_ns() const { return end_ns - start_ns; }
  bool operator==(const RecordedOperation&) const = default;
};

struct Spread {
  int64_t count = 0;
  double sum = 0, min = 0, max = 0;
  void add(double value);
  void add(const Spread& other);
  double mean() const { return count > 0 ? sum / static_cast<double>(count) : 0; }
  bool operator==(const Spread&) const = default;
};

struct HeadPart {
  double part = 0, whole = 0;
  bool operator==(const HeadPart&) const = default;
};

struct RecordedLayer {
  Spread density, coverage;
  // By head of the model, zeros for heads of other Ulysses ranks; empty: unknown.
  std::vector<HeadPart> head_density, head_coverage;
  bool operator==(const RecordedLayer&) const = default;
};

// Of all scopes of a name and phase.
struct KernelWork {
  uint32_t name = 0;
  Phase phase = Phase::kOther;
  double flops = 0, bytes = 0;
  bool operator==(const KernelWork&) const = default;
};

struct SentTo {
  int32_t group = 0;  // of the header's groups
  int rank = 0;       // of the world
  int64_t bytes = 0;
  bool operator==(const SentTo&) const = default;
};

struct RecordedStep {
  int64_t step = 0;
  bool recorded = true;  // false: its time alone was taken
  int64_t begin_ns = 0, wall_ns = 0;
  int64_t tokens = 0, all_tokens = 0;  // of this rank, of the job
  int64_t lost_records = 0;
  int64_t recording_ns = 0;  // that collecting the step before took
  double dense_equivalent_flops = 0, executed_flops = 0;
  std::vector<RecordedInterval> intervals;
  std::vector<RecordedOperation> operations;
  std::vector<RecordedLayer> layers;
  std::vector<KernelWork> work;
  std::vector<SentTo> sent;
  bool operator==(const RecordedStep&) const = default;
};

// Numbers of the names that a file's intervals have.
class NameTable {
 public:
  uint32_t number_of(const std::string& name);
  const std::string& operator[](uint32_t number) const { return names_.at(number); }
  size_t size() const { return names_.size(); }
  void append(std::string name) { names_.push_back(std::move(name)); }

 private:
  std::vector<std::string> names_;
};

}  // namespace sprocket::profile

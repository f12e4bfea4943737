#include "runtime/profile/step_collector.h"

namespace sprocket::runtime {
namespace {

int64_t length_of(std::span<const Interval> intervals, Activity activity) {
  int64_t sum = 0;
  for (const Interval& interval : intervals) {
    if (interval.activity == activity) sum += interval.end_ns - interval.begin_ns;
  }
  return sum;
}

void add_heads(LayerHeadShares& sums, size_t layer, const std::vector<kernels::Share>& heads) {
  if (heads.empty()) return;
  if (sums.size() <= layer) sums.resize(layer + 1);
  sums[layer].resize(heads.size());
  for (size_t h = 0; h < heads.size(); ++h) sums[layer][h] += heads[h];
}

bool under_way(const comm::OpRecord& record) {
  switch (record.state) {
    case comm::OpState::kEnqueued:
    case comm::OpState::kStarted:
      return true;
    case comm::OpState::kCompleted:
    case comm::OpState::kFailed:
      return false;
  }
  return false;
}

RunningRange merged(const RunningRange& a, const RunningRange& b) {
  if (a.count == 0) return b;
  if (b.count == 0) return a;
  return {a.count + b.count, a.sum + b.sum, std::min(a.min, b.min), std::max(a.max, b.max)};
}

}  // namespace

StepTimes step_times(std::span<const Interval> intervals, std::span<const Span> in_flight,
                     Span step) {
  std::vector<Span> compute;
  for (const Interval& interval : intervals) {
    if (interval.activity == Activity::kCompute) {
      compute.push_back({interval.begin_ns, interval.end_ns});
    }
  }
  const IntervalSet whole({step});
  const IntervalSet c = intersect(IntervalSet(std::move(compute)), whole);
  const IntervalSet m =
      intersect(IntervalSet(std::vector<Span>(in_flight.begin(), in_flight.end())), whole);
  StepTimes times;
  times.wall_ns = whole.length();
  times.compute_ns = c.length();
  times.communication_ns = m.length();
  times.exposed_ns = subtract(m, c).length();
  times.overlapped_ns = intersect(m, c).length();
  times.data_wait_ns = length_of(intervals, Activity::kDataWait);
  return times;
}

StepCollector::StepCollector(const parallel::Mesh& mesh, int layers)
    : mesh_(mesh), step_layers_(layers), step_pairs_(layers) {
  const parallel::MeshShape& shape = mesh.shape();
  const parallel::MeshCoordinate& at = mesh.coordinate();
  const auto add = [this](const comm::Communicator& communicator, int index) {
    groups_.push_back({&communicator});
    profile_.groups.push_back({communicator.name(), index, communicator.size()});
  };
  const auto add_all = [&](const parallel::MeshGroups& groups) {
    add(groups.world(), 0);
    add(groups.data(), at.outer * shape.ulysses + at.ulysses);
    add(groups.sequence(), at.data);
    add(groups.outer(), at.data * shape.ulysses + at.ulysses);
    add(groups.ulysses(), at.data * shape.outer + at.outer);
  };
  add_all(mesh.host());
  if (&mesh.tensors() != &mesh.host()) add_all(mesh.tensors());
  profile_.layers.resize(layers);
  if (mesh.timeline()) mesh.timeline()->set_recording(true);
}

void StepCollector::collect_records(bool last) {
  for (size_t g = 0; g < groups_.size(); ++g) {
    const comm::Recorder& recorder = groups_[g].communicator->recorder();
    int64_t& next = groups_[g].next_sequence;
    const auto records = recorder.since(next);
    const int64_t kept = records.empty() ? recorder.next_sequence() : records.front().sequence;
    step_lost_ += kept - next;
    next = kept;
    for (const comm::OpRecord& record : records) {
      if (!last && under_way(record)) break;
      records_.emplace_back(static_cast<int32_t>(g), record);
      ++next;
    }
  }
}

void StepCollector::begin_step() {
  if (mesh_.timeline()) mesh_.timeline()->take();
  for (Group& group : groups_) group.next_sequence = group.communicator->recorder().next_sequence();
  records_.clear();
  step_layers_.assign(step_layers_.size(), {});
  step_pairs_.assign(step_pairs_.size(), 0);
  step_domain_coverage_.clear();
  step_kept_mass_.clear();
  step_head_density_.clear();
  step_head_coverage_.clear();
  step_lost_ = 0;
  step_begin_ns_ = monotonic_ns();
}

void StepCollector::collect(std::span<const parallel::AttentionSlot> slots) {
  collect_records(/*last=*/false);
  for (size_t layer = 0; layer < slots.size(); ++layer) {
    step_layers_[layer].density.add(slots[layer].statistics.density);
    step_layers_[layer].coverage.add(slots[layer].statistics.coverage);
    for (const int64_t pairs : slots[layer].statistics.pairs) {
      step_pairs_[layer] += static_cast<double>(pairs);
    }
    add_heads(step_domain_coverage_, layer, slots[layer].statistics.domain_coverage);
    add_heads(step_kept_mass_, layer, slots[layer].statistics.kept_mass);
    add_heads(step_head_density_, layer, slots[layer].statistics.head_density);
    add_heads(step_head_coverage_, layer, slots[layer].statistics.head_coverage);
  }
}

StepTimes StepCollector::end_step(int64_t tokens, bool reported) {
  std::vector<Interval> intervals;
  if (mesh_.timeline()) intervals = mesh_.timeline()->take();
  // Of operations that only the device has waited for nobody has looked whether they are done.
  mesh_.tensors().world().progress();
  collect_records(/*last=*/true);
  std::vector<Span> in_flight;
  for (const auto& [group, record] : records_) {
    if (record.state == comm::OpState::kCompleted && groups_[group].communicator->size() > 1) {
      in_flight.push_back({record.start_ns, record.end_ns});
    }
  }
  const StepTimes times = step_times(intervals, in_flight, {step_begin_ns_, monotonic_ns()});
  if (!reported) return times;

  ++profile_.steps;
  profile_.wall_ns += times.wall_ns;
  profile_.compute_ns += times.compute_ns;
  profile_.communication_ns += times.communication_ns;
  profile_.exposed_ns += times.exposed_ns;
  profile_.overlapped_ns += times.overlapped_ns;
  profile_.data_wait_ns += times.data_wait_ns;
  profile_.tokens += tokens;
  profile_.lost_records += step_lost_;
  for (const Interval& interval : intervals) {
    if (interval.activity == Activity::kCompute) {
      profile_.compute_by_name_ns[interval.name] += interval.end_ns - interval.begin_ns;
    }
  }
  for (const auto& [group, record] : records_) {
    if (groups_[group].communicator->size() == 1) continue;
    OpTotals& totals =
        profile_.operations[{profile_.groups[group].name, record.op, record.position.phase}];
    ++totals.operations;
    totals.bytes_sent += record.bytes_sent;
    totals.messages_sent += record.messages_sent;
    if (under_way(record)) continue;
    const int64_t duration = record.end_ns - record.start_ns;
    totals.duration_ns += duration;
    profile_.timings.push_back({group, static_cast<uint8_t>(record.op),
                                static_cast<uint8_t>(record.position.phase), record.sequence,
                                duration});
  }
  if (profile_.timings.size() > RankProfile::kMaxTimings) {
    profile_.timings.erase(profile_.timings.begin(),
                           profile_.timings.end() - RankProfile::kMaxTimings / 2);
  }
  for (size_t layer = 0; layer < step_layers_.size(); ++layer) {
    LayerShares& total = profile_.layers[layer];
    total.density = merged(total.density, step_layers_[layer].density);
    total.coverage = merged(total.coverage, step_layers_[layer].coverage);
  }
  return times;
}

}  // namespace sprocket::runtime

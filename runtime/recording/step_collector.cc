#include "runtime/recording/step_collector.h"

namespace sprocket::runtime {
namespace {

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

}  // namespace

StepCollector::StepCollector(const parallel::Mesh& mesh, int layers)
    : mesh_(mesh), step_layers_(layers), step_pairs_(layers) {
  add_mesh(mesh, "");
}

void StepCollector::add_mesh(const parallel::Mesh& mesh, const std::string& prefix) {
  const parallel::MeshShape& shape = mesh.shape();
  const parallel::MeshCoordinate& at = mesh.coordinate();
  const auto add_all = [&](const parallel::MeshGroups& groups, const std::string& suffix) {
    const auto add = [&](const comm::Communicator& communicator, const std::string& name,
                         int index) {
      if (communicator.size() == 1) return;
      groups_.push_back({prefix + name + suffix, index, &communicator});
    };
    add(groups.world(), "world", 0);
    add(groups.data(), "dp", at.outer * shape.ulysses + at.ulysses);
    add(groups.sequence(), "sp", at.data);
    add(groups.outer(), "sp.outer", at.data * shape.ulysses + at.ulysses);
    add(groups.ulysses(), "sp.ulysses", at.data * shape.outer + at.outer);
  };
  add_all(mesh.tensors(), "");
  if (&mesh.tensors() != &mesh.host()) add_all(mesh.host(), ".host");
  next_sequence_.resize(groups_.size());
  sent_before_.resize(groups_.size());
}

void StepCollector::collect_operations(bool last) {
  for (size_t g = 0; g < groups_.size(); ++g) {
    const comm::Recorder& recorder = groups_[g].communicator->recorder();
    int64_t& next = next_sequence_[g];
    const auto records = recorder.since(next);
    const int64_t kept = records.empty() ? recorder.next_sequence() : records.front().sequence;
    lost_ += kept - next;
    next = kept;
    for (const comm::OpRecord& record : records) {
      if (!last && under_way(record)) break;
      operations_.emplace_back(static_cast<int32_t>(g), record);
      ++next;
    }
  }
}

void StepCollector::begin_step(bool recorded) {
  recorded_ = recorded;
  if (mesh_.timeline()) {
    mesh_.timeline()->take();
    mesh_.timeline()->set_recording(recorded);
  }
  for (size_t g = 0; g < groups_.size(); ++g) {
    next_sequence_[g] = groups_[g].communicator->recorder().next_sequence();
    sent_before_[g] = groups_[g].communicator->recorder().sent_to();
  }
  intervals_.clear();
  operations_.clear();
  step_layers_.assign(step_layers_.size(), {});
  step_pairs_.assign(step_pairs_.size(), 0);
  step_domain_coverage_.clear();
  step_kept_mass_.clear();
  step_head_density_.clear();
  step_head_coverage_.clear();
  lost_ = 0;
  span_.begin = monotonic_ns();
}

void StepCollector::collect(std::span<const parallel::AttentionSlot> slots) {
  if (recorded_) collect_operations(/*last=*/false);
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

profile::StepParts StepCollector::end_step() {
  std::vector<profile::Span> in_flight;
  if (recorded_) {
    if (mesh_.timeline()) intervals_ = mesh_.timeline()->take();
    // Of operations that only the device has waited for nobody has looked whether they are done.
    mesh_.tensors().world().progress();
    collect_operations(/*last=*/true);
    for (const auto& [group, record] : operations_) {
      if (record.state == comm::OpState::kCompleted) {
        in_flight.push_back({record.start_ns, record.end_ns});
      }
    }
  }
  span_.end = monotonic_ns();
  return step_parts(profile::step_sets(intervals_, std::move(in_flight), span_), span_);
}

std::vector<profile::SentTo> StepCollector::sent() const {
  std::vector<profile::SentTo> sent;
  for (size_t g = 0; g < groups_.size(); ++g) {
    const comm::Communicator& group = *groups_[g].communicator;
    const std::vector<int64_t> now = group.recorder().sent_to();
    for (size_t member = 0; member < now.size(); ++member) {
      const int64_t bytes = now[member] - sent_before_[g][member];
      if (bytes == 0) continue;
      sent.push_back({static_cast<int32_t>(g), group.member_world_ranks()[member], bytes});
    }
  }
  return sent;
}

}  // namespace sprocket::runtime

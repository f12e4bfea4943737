#include "runtime/recording/window_recorder.h"

#include <map>
#include <utility>

namespace sprocket::runtime {
namespace {

using profile::events::Header;

Header with_groups(Header header, const StepCollector& collector) {
  for (const CollectedGroup& group : collector.groups()) {
    profile::events::Group& to = *header.add_groups();
    to.set_name(group.name);
    to.set_index(group.index);
    for (const int rank : group.communicator->member_world_ranks()) to.add_members(rank);
  }
  return header;
}

std::vector<profile::HeadPart> parts_of(const LayerHeadShares& shares, size_t layer) {
  std::vector<profile::HeadPart> parts;
  if (layer >= shares.size()) return parts;
  for (const kernels::Share& share : shares[layer]) parts.push_back({share.part, share.whole});
  return parts;
}

void add_operations(const StepCollector& collector, profile::RecordedStep& step) {
  for (const auto& [group, record] : collector.operations()) {
    profile::RecordedOperation& op = step.operations.emplace_back();
    op.group = group;
    op.op = record.op;
    op.phase = record.position.phase;
    op.layer = record.position.layer;
    op.sequence = record.sequence;
    op.start_ns = record.start_ns != 0 ? record.start_ns : record.enqueue_ns;
    op.end_ns = record.state == comm::OpState::kCompleted ? record.end_ns : op.start_ns - 1;
    op.sent_bytes = record.bytes_sent;
    op.messages = record.messages_sent;
    op.volume_bytes = record.volume_bytes;
    if (record.last_peer >= 0) {
      const auto& members = collector.groups()[group].communicator->member_world_ranks();
      op.last_peer = members[record.last_peer];
      op.last_alone_ns = record.last_alone_ns;
    }
  }
}

void add_intervals(const StepCollector& collector, profile::NameTable& names,
                   profile::RecordedStep& step) {
  // Names are static: mostly the pointer is known already.
  std::map<const char*, uint32_t> numbers;
  std::map<std::pair<uint32_t, Phase>, Work> work;
  for (const Interval& interval : collector.intervals()) {
    const auto [known, is_new] = numbers.try_emplace(interval.name, 0);
    if (is_new) known->second = names.number_of(interval.name);
    step.intervals.push_back({interval.activity, interval.position.phase, interval.position.layer,
                              known->second, interval.begin_ns, interval.end_ns, interval.closes});
    if (interval.work.flops == 0 && interval.work.bytes == 0) continue;
    Work& sum = work[{known->second, interval.position.phase}];
    sum.flops += interval.work.flops;
    sum.bytes += interval.work.bytes;
  }
  for (const auto& [key, sum] : work) {
    step.work.push_back({key.first, key.second, sum.flops, sum.bytes});
  }
}

}  // namespace

WindowRecorder::WindowRecorder(const std::string& path, Header header,
                               const StepCollector& collector)
    : collector_(collector), file_(path, with_groups(std::move(header), collector)) {}

void WindowRecorder::append(const StepFacts& facts) {
  const int64_t begin = monotonic_ns();
  profile::RecordedStep step;
  step.step = facts.step;
  step.recorded = collector_.recorded();
  step.begin_ns = collector_.span().begin;
  step.wall_ns = collector_.span().end - collector_.span().begin;
  if (step.recorded) {
    step.tokens = facts.tokens;
    step.all_tokens = facts.all_tokens;
    step.dense_equivalent_flops = facts.dense_equivalent_flops;
    step.executed_flops = facts.executed_flops;
    step.lost_records = collector_.lost_records();
    step.recording_ns = recording_ns_;
    add_intervals(collector_, file_.names(), step);
    add_operations(collector_, step);
    for (size_t layer = 0; layer < collector_.step_layers().size(); ++layer) {
      const LayerShares& shares = collector_.step_layers()[layer];
      step.layers.push_back({shares.density, shares.coverage,
                             parts_of(collector_.step_head_density(), layer),
                             parts_of(collector_.step_head_coverage(), layer)});
    }
    step.sent = collector_.sent();
  }
  file_.append(step);
  if (step.recorded) recording_ns_ = monotonic_ns() - begin;
}

void WindowRecorder::end(profile::events::End memory) {
  memory.set_recording_ns(recording_ns_);
  file_.end(memory);
}

}  // namespace sprocket::runtime

#include "runtime/profile/rank_sums.h"

#include <algorithm>

namespace sprocket::profile {
namespace {

Span span_of(const RecordedStep& step) { return {step.begin_ns, step.begin_ns + step.wall_ns}; }

std::vector<Span> in_flight(const RecordedStep& step) {
  std::vector<Span> spans;
  for (const RecordedOperation& op : step.operations) {
    if (op.completed()) spans.push_back({op.start_ns, op.end_ns});
  }
  return spans;
}

LayerSums& layer_of(std::vector<LayerSums>& layers, int layer) {
  if (std::ssize(layers) <= layer) layers.resize(layer + 1);
  return layers[layer];
}

void add_heads(const std::vector<HeadPart>& from, std::vector<HeadPart>& to) {
  if (to.size() < from.size()) to.resize(from.size());
  for (size_t h = 0; h < from.size(); ++h) {
    to[h].part += from[h].part;
    to[h].whole += from[h].whole;
  }
}

void add_communication(const RecordedStep& step, const IntervalSet& compute,
                       std::vector<LayerSums>& layers) {
  std::map<int, std::vector<Span>> by_layer;
  for (const RecordedOperation& op : step.operations) {
    if (op.layer >= 0 && op.completed()) by_layer[op.layer].push_back({op.start_ns, op.end_ns});
  }
  const IntervalSet whole({span_of(step)});
  for (auto& [layer, spans] : by_layer) {
    const IntervalSet communication = intersect(IntervalSet(std::move(spans)), whole);
    layer_of(layers, layer).communication_ns += communication.length();
    layer_of(layers, layer).exposed_ns += subtract(communication, compute).length();
  }
}

}  // namespace

RankSums::Step RankSums::add(const RankStep& rank, const std::vector<std::string>& hosts) {
  const RecordedStep& step = rank.step;
  StepSets sets = step_sets(step.intervals, in_flight(step), span_of(step));
  const StepParts of_step = step_parts(sets, span_of(step));
  ++steps;
  parts.add(of_step);
  tokens += step.tokens;
  records += static_cast<int64_t>(step.intervals.size() + step.operations.size());
  lost_records += step.lost_records;
  recording_ns += step.recording_ns;
  for (const RecordedInterval& interval : step.intervals) {
    const int64_t ns = interval.end_ns - interval.begin_ns;
    if (interval.activity == Activity::kCompute && interval.layer >= 0) {
      layer_of(layers, interval.layer).compute_ns += ns;
    }
    if (interval.activity != Activity::kCompute && interval.activity != Activity::kCopy) continue;
    KernelSums& kernel = kernels[{(*rank.names)[interval.name], interval.phase}];
    kernel.activity = interval.activity;
    kernel.calls += interval.closes;
    kernel.ns += ns;
  }
  for (const KernelWork& work : step.work) {
    KernelSums& kernel = kernels[{(*rank.names)[work.name], work.phase}];
    kernel.flops += work.flops;
    kernel.bytes += work.bytes;
  }
  add_communication(step, sets.compute, layers);
  for (size_t layer = 0; layer < step.layers.size(); ++layer) {
    LayerSums& sums = layer_of(layers, static_cast<int>(layer));
    sums.density.add(step.layers[layer].density);
    sums.coverage.add(step.layers[layer].coverage);
    add_heads(step.layers[layer].head_density, sums.head_density);
    add_heads(step.layers[layer].head_coverage, sums.head_coverage);
  }
  for (const SentTo& sent : step.sent) {
    sent_bytes += sent.bytes;
    sent_to[sent.rank] += sent.bytes;
    Sent& group = sent_by_group[rank.header->groups(sent.group).name()];
    group.all += sent.bytes;
    if (hosts.at(sent.rank) != hosts.at(rank.rank)) group.between_hosts += sent.bytes;
  }
  return {of_step, std::move(sets.compute)};
}

}  // namespace sprocket::profile

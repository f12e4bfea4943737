#include "runtime/profile/event_records.h"

#include <initializer_list>

#include "base/error.h"

namespace sprocket::profile {
namespace {

// An enumerator and a phase share a number.
constexpr uint32_t kPhaseUnit = 16;
constexpr uint32_t kClosesUnit = 256;
constexpr uint32_t kActivities = static_cast<uint32_t>(Activity::kOther) + 1;
constexpr uint32_t kOperations = static_cast<uint32_t>(comm::OpKind::kSplit) + 1;

template <class Kind>
uint32_t kind_of(Kind kind, Phase phase) {
  return static_cast<uint32_t>(kind) + kPhaseUnit * static_cast<uint32_t>(phase);
}

void check(bool holds, const char* what) {
  if (!holds) throw InputError(what);
}

void check_lengths(std::initializer_list<int> lengths, const char* what) {
  for (const int length : lengths) check(length == *lengths.begin(), what);
}

events::Spread packed(const Spread& spread) {
  events::Spread message;
  message.set_count(spread.count);
  message.set_sum(spread.sum);
  message.set_min(spread.min);
  message.set_max(spread.max);
  return message;
}

Spread unpacked(const events::Spread& message) {
  return {message.count(), message.sum(), message.min(), message.max()};
}

void pack_intervals(const RecordedStep& step, events::Intervals& columns) {
  int64_t former = step.begin_ns;
  for (const RecordedInterval& interval : step.intervals) {
    columns.add_begin(interval.begin_ns - former);
    columns.add_length(interval.end_ns - interval.begin_ns);
    columns.add_name(interval.name);
    columns.add_kind(kind_of(interval.activity, interval.phase) +
                     (interval.closes ? kClosesUnit : 0));
    columns.add_layer(interval.layer);
    former = interval.begin_ns;
  }
}

void pack_operations(const RecordedStep& step, events::Operations& columns) {
  int64_t start = step.begin_ns, sequence = 0;
  for (const RecordedOperation& op : step.operations) {
    columns.add_group(op.group);
    columns.add_kind(kind_of(op.op, op.phase));
    columns.add_sequence(op.sequence - sequence);
    columns.add_start(op.start_ns - start);
    columns.add_length(op.completed() ? op.duration_ns() : -1);
    columns.add_layer(op.layer);
    columns.add_sent(op.sent_bytes);
    columns.add_messages(op.messages);
    columns.add_volume(op.volume_bytes);
    columns.add_last_peer(op.last_peer);
    columns.add_last_alone(op.last_alone_ns);
    start = op.start_ns;
    sequence = op.sequence;
  }
}

void pack_heads(const std::vector<HeadPart>& heads, google::protobuf::RepeatedField<double>* parts,
                google::protobuf::RepeatedField<double>* wholes) {
  for (const HeadPart& head : heads) {
    parts->Add(head.part);
    wholes->Add(head.whole);
  }
}

std::vector<HeadPart> unpacked(const google::protobuf::RepeatedField<double>& parts,
                               const google::protobuf::RepeatedField<double>& wholes) {
  check_lengths({parts.size(), wholes.size()}, "shares of heads of unequal lengths");
  std::vector<HeadPart> heads;
  for (int h = 0; h < parts.size(); ++h) heads.push_back({parts[h], wholes[h]});
  return heads;
}

void unpack_intervals(const events::Intervals& columns, size_t names, RecordedStep& step) {
  const int count = columns.begin_size();
  check_lengths({count, columns.length_size(), columns.name_size(), columns.kind_size(),
                 columns.layer_size()},
                "columns of intervals of unequal lengths");
  step.intervals.resize(count);
  int64_t begin = step.begin_ns;
  for (int i = 0; i < count; ++i) {
    begin += columns.begin(i);
    const uint32_t kind = columns.kind(i) % kClosesUnit;
    check(columns.name(i) < names, "an interval with a name that there is not");
    check(kind % kPhaseUnit < kActivities && kind / kPhaseUnit < uint32_t{kPhases},
          "an interval of an unknown kind");
    check(columns.length(i) >= 0, "an interval that ends before it begins");
    step.intervals[i] = {static_cast<Activity>(kind % kPhaseUnit),
                         static_cast<Phase>(kind / kPhaseUnit),
                         static_cast<int16_t>(columns.layer(i)),
                         columns.name(i),
                         begin,
                         begin + columns.length(i),
                         columns.kind(i) >= kClosesUnit};
  }
}

void unpack_operations(const events::Operations& columns, int groups, RecordedStep& step) {
  const int count = columns.group_size();
  check_lengths(
      {count, columns.kind_size(), columns.sequence_size(), columns.start_size(),
       columns.length_size(), columns.layer_size(), columns.sent_size(), columns.messages_size(),
       columns.volume_size(), columns.last_peer_size(), columns.last_alone_size()},
      "columns of operations of unequal lengths");
  step.operations.resize(count);
  int64_t start = step.begin_ns, sequence = 0;
  for (int i = 0; i < count; ++i) {
    start += columns.start(i);
    sequence += columns.sequence(i);
    const uint32_t kind = columns.kind(i);
    check(columns.group(i) < static_cast<uint32_t>(groups),
          "an operation of a group that there is not");
    check(kind % kPhaseUnit < kOperations && kind / kPhaseUnit < uint32_t{kPhases},
          "an operation of an unknown kind");
    RecordedOperation& op = step.operations[i];
    op.group = static_cast<int32_t>(columns.group(i));
    op.op = static_cast<comm::OpKind>(kind % kPhaseUnit);
    op.phase = static_cast<Phase>(kind / kPhaseUnit);
    op.layer = static_cast<int16_t>(columns.layer(i));
    op.sequence = sequence;
    op.start_ns = start;
    op.end_ns = start + columns.length(i);
    op.sent_bytes = columns.sent(i);
    op.messages = columns.messages(i);
    op.volume_bytes = columns.volume(i);
    op.last_peer = columns.last_peer(i);
    op.last_alone_ns = columns.last_alone(i);
  }
}

}  // namespace

events::Step pack(const RecordedStep& step) {
  events::Step message;
  message.set_step(step.step);
  message.set_recorded(step.recorded);
  message.set_begin_ns(step.begin_ns);
  message.set_wall_ns(step.wall_ns);
  message.set_tokens(step.tokens);
  message.set_all_tokens(step.all_tokens);
  message.set_lost_records(step.lost_records);
  message.set_recording_ns(step.recording_ns);
  message.set_dense_equivalent_flops(step.dense_equivalent_flops);
  message.set_executed_flops(step.executed_flops);
  pack_intervals(step, *message.mutable_intervals());
  pack_operations(step, *message.mutable_operations());
  for (const RecordedLayer& layer : step.layers) {
    events::Layer& to = *message.add_layers();
    *to.mutable_density() = packed(layer.density);
    *to.mutable_coverage() = packed(layer.coverage);
    pack_heads(layer.head_density, to.mutable_selected(), to.mutable_selectable());
    pack_heads(layer.head_coverage, to.mutable_needed(), to.mutable_remote());
  }
  for (const KernelWork& work : step.work) {
    events::KernelWork& to = *message.add_work();
    to.set_name(work.name);
    to.set_phase(static_cast<uint32_t>(work.phase));
    to.set_flops(work.flops);
    to.set_bytes(work.bytes);
  }
  for (const SentTo& sent : step.sent) {
    message.add_sent_group(sent.group);
    message.add_sent_to(sent.rank);
    message.add_sent_bytes(sent.bytes);
  }
  return message;
}

RecordedStep unpack(const events::Step& message, size_t names, int groups) {
  RecordedStep step;
  step.step = message.step();
  step.recorded = message.recorded();
  step.begin_ns = message.begin_ns();
  step.wall_ns = message.wall_ns();
  step.tokens = message.tokens();
  step.all_tokens = message.all_tokens();
  step.lost_records = message.lost_records();
  step.recording_ns = message.recording_ns();
  step.dense_equivalent_flops = message.dense_equivalent_flops();
  step.executed_flops = message.executed_flops();
  unpack_intervals(message.intervals(), names, step);
  unpack_operations(message.operations(), groups, step);
  for (const events::Layer& layer : message.layers()) {
    step.layers.push_back({unpacked(layer.density()), unpacked(layer.coverage()),
                           unpacked(layer.selected(), layer.selectable()),
                           unpacked(layer.needed(), layer.remote())});
  }
  for (const events::KernelWork& work : message.work()) {
    check(work.name() < names && work.phase() < uint32_t{kPhases},
          "work of a name or phase that there is not");
    step.work.push_back(
        {work.name(), static_cast<Phase>(work.phase()), work.flops(), work.bytes()});
  }
  check_lengths({message.sent_to_size(), message.sent_bytes_size(), message.sent_group_size()},
                "columns of sent bytes of unequal lengths");
  for (int i = 0; i < message.sent_to_size(); ++i) {
    check(message.sent_group(i) >= 0 && message.sent_group(i) < groups,
          "bytes sent in a group that there is not");
    step.sent.push_back({message.sent_group(i), message.sent_to(i), message.sent_bytes(i)});
  }
  return step;
}

}  // namespace sprocket::profile

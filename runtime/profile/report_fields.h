// The keys of profile.json, once, for both directions: which member of which struct has which key.
//
// kFields<T> is a tuple of Field{key, member} in the order of docs/profile.md; a type without one
// is a number, a text, a list or an optional of what has one. kRow types are written as lists of
// their members instead of objects. An optional member that is empty has no key.
#pragma once

#include <tuple>

#include "runtime/profile/report.h"

namespace sprocket::profile {

template <class Owner, class Value>
struct Field {
  const char* key;
  Value Owner::*member;
};

template <class Owner, class Value>
constexpr Field<Owner, Value> field(const char* key, Value Owner::*member) {
  return {key, member};
}

template <class T>
inline constexpr auto kFields = std::tuple<>();

template <class T>
inline constexpr bool kRow = false;

template <>
inline constexpr auto kFields<Host> = std::tuple(field("name", &Host::name),
                                                 field("ranks", &Host::ranks));

template <>
inline constexpr auto kFields<Program> = std::tuple(field("name", &Program::name),
                                                    field("version", &Program::version));

template <>
inline constexpr auto kFields<JobIdentity> = std::tuple(
    field("kind", &JobIdentity::kind), field("title", &JobIdentity::title),
    field("description", &JobIdentity::description), field("identity", &JobIdentity::identity));

template <>
inline constexpr auto kFields<Machine> = std::tuple(field("hosts", &Machine::hosts),
                                                    field("device", &Machine::device),
                                                    field("threads", &Machine::threads));

template <>
inline constexpr auto kFields<MeshText> = std::tuple(field("data", &MeshText::data),
                                                     field("outer", &MeshText::outer),
                                                     field("ulysses", &MeshText::ulysses),
                                                     field("strategy", &MeshText::strategy));

template <>
inline constexpr auto kFields<Window> = std::tuple(field("first_step", &Window::first_step),
                                                   field("steps", &Window::steps),
                                                   field("asked", &Window::asked),
                                                   field("complete", &Window::complete),
                                                   field("missing_ranks", &Window::missing_ranks),
                                                   field("lost_records", &Window::lost_records),
                                                   field("notes", &Window::notes));

template <>
inline constexpr auto kFields<StepSummary> = std::tuple(
    field("seconds", &StepSummary::seconds), field("median_seconds", &StepSummary::median_seconds),
    field("each_seconds", &StepSummary::each_seconds),
    field("tokens_per_second", &StepSummary::tokens_per_second));

template <>
inline constexpr auto kFields<Shares> =
    std::tuple(field("compute", &Shares::compute),
               field("exposed_communication", &Shares::exposed_communication),
               field("copies", &Shares::copies), field("data_wait", &Shares::data_wait),
               field("other", &Shares::other), field("overlap", &Shares::overlap),
               field("waiting", &Shares::waiting));

template <>
inline constexpr auto kFields<EachStep> =
    std::tuple(field("compute", &EachStep::compute),
               field("exposed_communication", &EachStep::exposed_communication),
               field("copies", &EachStep::copies), field("data_wait", &EachStep::data_wait),
               field("other", &EachStep::other), field("waiting", &EachStep::waiting));

template <>
inline constexpr auto kFields<StepWork> = std::tuple(
    field("dense_equivalent", &StepWork::dense_equivalent), field("executed", &StepWork::executed),
    field("peak_per_second", &StepWork::peak_per_second), field("mfu", &StepWork::mfu),
    field("hfu", &StepWork::hfu));

template <>
inline constexpr auto kFields<RankMemory> =
    std::tuple(field("peak_bytes", &RankMemory::peak_bytes),
               field("parameters_bytes", &RankMemory::parameters_bytes),
               field("gradients_bytes", &RankMemory::gradients_bytes),
               field("moments_bytes", &RankMemory::moments_bytes),
               field("rest_bytes", &RankMemory::rest_bytes),
               field("tensors_peak_bytes", &RankMemory::tensors_peak_bytes));

template <>
inline constexpr auto kFields<LargestMemory> =
    std::tuple_cat(std::tuple(field("rank", &LargestMemory::rank)), kFields<RankMemory>);

template <>
inline constexpr auto kFields<RankRow> = std::tuple(
    field("rank", &RankRow::rank), field("host", &RankRow::host),
    field("step_ms", &RankRow::step_ms), field("compute_ms", &RankRow::compute_ms),
    field("exposed_ms", &RankRow::exposed_ms), field("copies_ms", &RankRow::copies_ms),
    field("data_wait_ms", &RankRow::data_wait_ms), field("other_ms", &RankRow::other_ms),
    field("communication_ms", &RankRow::communication_ms), field("wait_ms", &RankRow::wait_ms),
    field("caused_wait_ms", &RankRow::caused_wait_ms), field("sent_bytes", &RankRow::sent_bytes),
    field("tokens", &RankRow::tokens), field("memory", &RankRow::memory));

template <>
inline constexpr auto kFields<OperationRow> = std::tuple(
    field("group", &OperationRow::group), field("op", &OperationRow::op),
    field("phase", &OperationRow::phase), field("calls", &OperationRow::calls),
    field("messages", &OperationRow::messages),
    field("payload_bytes", &OperationRow::payload_bytes),
    field("wire_bytes", &OperationRow::wire_bytes),
    field("between_nodes_bytes", &OperationRow::between_nodes_bytes),
    field("transfer_ms", &OperationRow::transfer_ms), field("wait_ms", &OperationRow::wait_ms),
    field("matched", &OperationRow::matched), field("busbw_gb_s", &OperationRow::busbw_gb_s),
    field("link_gb_s", &OperationRow::link_gb_s), field("link_share", &OperationRow::link_share));

template <>
inline constexpr auto kFields<SlowOperation> =
    std::tuple(field("group", &SlowOperation::group), field("index", &SlowOperation::index),
               field("sequence", &SlowOperation::sequence), field("op", &SlowOperation::op),
               field("phase", &SlowOperation::phase), field("layer", &SlowOperation::layer),
               field("step", &SlowOperation::step), field("ms", &SlowOperation::ms),
               field("transfer_ms", &SlowOperation::transfer_ms),
               field("late_rank", &SlowOperation::late_rank));

template <>
inline constexpr auto kFields<Range> = std::tuple(field("mean", &Range::mean),
                                                  field("min", &Range::min),
                                                  field("max", &Range::max));

template <>
inline constexpr auto kFields<LayerRow> = std::tuple(
    field("layer", &LayerRow::layer), field("compute_ms", &LayerRow::compute_ms),
    field("communication_ms", &LayerRow::communication_ms),
    field("exposed_ms", &LayerRow::exposed_ms), field("wait_ms", &LayerRow::wait_ms),
    field("density", &LayerRow::density), field("coverage", &LayerRow::coverage),
    field("imbalance", &LayerRow::imbalance), field("slowest_rank", &LayerRow::slowest_rank));

template <>
inline constexpr auto kFields<Heads> = std::tuple(field("density", &Heads::density),
                                                  field("coverage", &Heads::coverage));

template <>
inline constexpr auto kFields<KernelRow> = std::tuple(field("name", &KernelRow::name),
                                                      field("activity", &KernelRow::activity),
                                                      field("phase", &KernelRow::phase),
                                                      field("calls", &KernelRow::calls),
                                                      field("ms", &KernelRow::ms),
                                                      field("flops", &KernelRow::flops),
                                                      field("bytes", &KernelRow::bytes));

template <>
inline constexpr auto kFields<RemoteKvRow> =
    std::tuple(field("value", &RemoteKvRow::value), field("rank", &RemoteKvRow::rank),
               field("kept_bytes", &RemoteKvRow::kept_bytes),
               field("fetched_bytes", &RemoteKvRow::fetched_bytes),
               field("at_hand_bytes", &RemoteKvRow::at_hand_bytes));

template <>
inline constexpr auto kFields<PredictionRow> = std::tuple(
    field("what", &PredictionRow::what), field("predicted_ms", &PredictionRow::predicted_ms),
    field("measured_ms", &PredictionRow::measured_ms), field("error", &PredictionRow::error));

template <>
inline constexpr auto kFields<Advice> = std::tuple(field("change", &Advice::change),
                                                   field("saves_ms", &Advice::saves_ms),
                                                   field("command", &Advice::command));

template <>
inline constexpr auto kFields<Prediction> = std::tuple(field("cluster", &Prediction::cluster),
                                                       field("rows", &Prediction::rows),
                                                       field("advice", &Prediction::advice));

template <>
inline constexpr auto kFields<Overhead> = std::tuple(
    field("share", &Overhead::share), field("recorded_seconds", &Overhead::recorded_seconds),
    field("unrecorded_seconds", &Overhead::unrecorded_seconds), field("steps", &Overhead::steps),
    field("records", &Overhead::records), field("recording_ms", &Overhead::recording_ms));

template <>
inline constexpr auto kFields<Curves> = std::tuple(field("loss", &Curves::loss),
                                                   field("tokens_per_second",
                                                         &Curves::tokens_per_second));

template <>
inline constexpr auto kFields<std::pair<int64_t, double>> =
    std::tuple(field("step", &std::pair<int64_t, double>::first),
               field("value", &std::pair<int64_t, double>::second));
template <>
inline constexpr bool kRow<std::pair<int64_t, double>> = true;

template <>
inline constexpr auto kFields<TimelineSpan> = std::tuple(
    field("lane", &TimelineSpan::lane), field("name", &TimelineSpan::name),
    field("phase", &TimelineSpan::phase), field("layer", &TimelineSpan::layer),
    field("begin_us", &TimelineSpan::begin_us), field("length_us", &TimelineSpan::length_us));
template <>
inline constexpr bool kRow<TimelineSpan> = true;

template <>
inline constexpr auto kFields<RankTimeline> = std::tuple(field("rank", &RankTimeline::rank),
                                                         field("offset_us",
                                                               &RankTimeline::offset_us),
                                                         field("spans", &RankTimeline::spans));

template <>
inline constexpr auto kFields<StepTimeline> = std::tuple(field("step", &StepTimeline::step),
                                                         field("names", &StepTimeline::names),
                                                         field("ranks", &StepTimeline::ranks));

template <>
inline constexpr auto kFields<Report> = std::tuple(
    field("schema", &Report::schema), field("program", &Report::program),
    field("job", &Report::job), field("machine", &Report::machine), field("mesh", &Report::mesh),
    field("window", &Report::window), field("verdict", &Report::verdict),
    field("step", &Report::step), field("shares", &Report::shares), field("each", &Report::each),
    field("flops", &Report::flops), field("ranks", &Report::ranks),
    field("operations", &Report::operations), field("slowest", &Report::slowest),
    field("layers", &Report::layers), field("heads", &Report::heads),
    field("kernels", &Report::kernels), field("bytes", &Report::bytes),
    field("bytes_block", &Report::bytes_block), field("memory", &Report::memory),
    field("remote_kv", &Report::remote_kv), field("prediction", &Report::prediction),
    field("overhead", &Report::overhead), field("curves", &Report::curves),
    field("timeline", &Report::timeline), field("phases", &Report::phases));

}  // namespace sprocket::profile

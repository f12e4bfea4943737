// profile.json as a struct: what docs/profile.md defines, field by field, in the same order and
// with the same names. What is unknown is empty.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace sprocket::profile {

inline constexpr int kProfileSchema = 2;

struct Host {
  std::string name;
  int ranks = 0;
  bool operator==(const Host&) const = default;
};

struct Program {
  std::string name, version;
  bool operator==(const Program&) const = default;
};

struct JobIdentity {
  std::string kind;         // "train", "sample"
  std::string title;        // one line
  std::string description;  // text format
  std::string identity;     // equal for comparable jobs
  bool operator==(const JobIdentity&) const = default;
};

struct Machine {
  std::vector<Host> hosts;
  std::string device;
  int threads = 0;
  bool operator==(const Machine&) const = default;
};

struct MeshText {
  int data = 1, outer = 1, ulysses = 1;
  std::optional<std::string> strategy;
  int world() const { return data * outer * ulysses; }
  bool operator==(const MeshText&) const = default;
};

struct Window {
  int64_t first_step = 0;
  int64_t steps = 0;
  int64_t asked = 0;
  bool complete = true;
  std::vector<int> missing_ranks;
  int64_t lost_records = 0;
  std::vector<std::string> notes;
  bool operator==(const Window&) const = default;
};

struct StepSummary {
  double seconds = 0, median_seconds = 0;
  std::vector<double> each_seconds;
  double tokens_per_second = 0;
  bool operator==(const StepSummary&) const = default;
};

// Parts of T; but for the last two they add up to 1.
struct Shares {
  double compute = 0, exposed_communication = 0, copies = 0, data_wait = 0, other = 0;
  double overlap = 0, waiting = 0;
  bool operator==(const Shares&) const = default;
};

struct EachStep {  // ms
  std::vector<double> compute, exposed_communication, copies, data_wait, other, waiting;
  bool operator==(const EachStep&) const = default;
};

struct StepWork {
  double dense_equivalent = 0, executed = 0;
  std::optional<double> peak_per_second, mfu, hfu;
  bool operator==(const StepWork&) const = default;
};

struct RankMemory {
  int64_t peak_bytes = 0, parameters_bytes = 0, gradients_bytes = 0, moments_bytes = 0;
  int64_t rest_bytes = 0;
  std::optional<int64_t> tensors_peak_bytes;
  bool operator==(const RankMemory&) const = default;
};

struct RankRow {
  int rank = 0;
  std::string host;
  double step_ms = 0;
  double compute_ms = 0, exposed_ms = 0, copies_ms = 0, data_wait_ms = 0, other_ms = 0;
  double communication_ms = 0, wait_ms = 0, caused_wait_ms = 0;
  double sent_bytes = 0, tokens = 0;
  std::optional<RankMemory> memory;  // unknown of a rank that died
  bool operator==(const RankRow&) const = default;
};

struct OperationRow {
  std::string group, op, phase;
  double calls = 0, messages = 0;
  double payload_bytes = 0, wire_bytes = 0, between_nodes_bytes = 0;
  double transfer_ms = 0, wait_ms = 0, matched = 0;
  std::optional<double> busbw_gb_s, link_gb_s, link_share;
  bool operator==(const OperationRow&) const = default;
};

struct SlowOperation {
  std::string group;
  int index = 0;
  int64_t sequence = 0;
  std::string op, phase;
  int layer = -1;
  int64_t step = 0;
  double ms = 0, transfer_ms = 0;
  int late_rank = 0;
  bool operator==(const SlowOperation&) const = default;
};

struct Range {
  double mean = 0, min = 0, max = 0;
  bool operator==(const Range&) const = default;
};

struct LayerRow {
  int layer = 0;
  double compute_ms = 0, communication_ms = 0, exposed_ms = 0, wait_ms = 0;
  std::optional<Range> density, coverage;
  double imbalance = 0;
  int slowest_rank = 0;
  bool operator==(const LayerRow&) const = default;
};

struct Heads {  // [layer][head]
  std::vector<std::vector<double>> density;
  std::optional<std::vector<std::vector<double>>> coverage;
  bool operator==(const Heads&) const = default;
};

struct KernelRow {
  std::string name, activity, phase;
  double calls = 0, ms = 0;
  std::optional<double> flops, bytes;
  bool operator==(const KernelRow&) const = default;
};

struct LargestMemory : RankMemory {
  int rank = 0;
  bool operator==(const LargestMemory&) const = default;
};

struct RemoteKvRow {
  std::string value;
  std::optional<int> rank;
  std::optional<int64_t> kept_bytes, fetched_bytes, at_hand_bytes;
  bool operator==(const RemoteKvRow&) const = default;
};

struct PredictionRow {
  std::string what;
  double predicted_ms = 0, measured_ms = 0, error = 0;
  bool operator==(const PredictionRow&) const = default;
};

struct Advice {
  std::string change;
  double saves_ms = 0;
  std::string command;
  bool operator==(const Advice&) const = default;
};

struct Prediction {
  std::string cluster;
  std::vector<PredictionRow> rows;
  std::optional<Advice> advice;
  bool operator==(const Prediction&) const = default;
};

struct Overhead {
  double share = 0, recorded_seconds = 0, unrecorded_seconds = 0;
  int64_t steps = 0;
  double records = 0, recording_ms = 0;
  bool operator==(const Overhead&) const = default;
};

struct Curves {
  std::vector<std::pair<int64_t, double>> loss, tokens_per_second;
  bool operator==(const Curves&) const = default;
};

struct TimelineSpan {
  int lane = 0, name = 0, phase = 0, layer = -1;
  double begin_us = 0, length_us = 0;
  bool operator==(const TimelineSpan&) const = default;
};

struct RankTimeline {
  int rank = 0;
  double offset_us = 0;
  std::vector<TimelineSpan> spans;
  bool operator==(const RankTimeline&) const = default;
};

struct StepTimeline {
  int64_t step = 0;
  std::vector<std::string> names;
  std::vector<RankTimeline> ranks;
  bool operator==(const StepTimeline&) const = default;
};

struct Report {
  int schema = kProfileSchema;
  Program program;
  JobIdentity job;
  Machine machine;
  MeshText mesh;
  Window window;
  std::vector<std::string> verdict;
  StepSummary step;
  Shares shares;
  EachStep each;
  std::optional<StepWork> flops;
  std::vector<RankRow> ranks;
  std::vector<OperationRow> operations;
  std::vector<SlowOperation> slowest;
  std::vector<LayerRow> layers;
  std::optional<Heads> heads;
  std::vector<KernelRow> kernels;
  std::vector<std::vector<double>> bytes;
  std::optional<int> bytes_block;  // ranks that a row of `bytes` stands for; empty: one
  std::optional<LargestMemory> memory;
  std::optional<RemoteKvRow> remote_kv;
  std::optional<Prediction> prediction;
  std::optional<Overhead> overhead;
  std::optional<Curves> curves;
  std::optional<StepTimeline> timeline;
  std::vector<std::string> phases;
  bool operator==(const Report&) const = default;
};

// The artefact.
std::string report_json(const Report& report);

// Of a file written by report_json. Throws InputError: unreadable, truncated, no profile, another
// schema (it says which), or a value of the wrong type (it says where).
Report read_report(const std::string& path);

}  // namespace sprocket::profile

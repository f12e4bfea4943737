#include "tests/profile/synthetic_events.h"

#include <algorithm>
#include <array>

namespace sprocket::profile::testing {

events::Header synthetic_header(int rank, int world, int64_t steps) {
  events::Header header;
  header.set_program_version("0.0.0");
  header.set_rank(rank);
  header.set_world(world);
  header.set_data(1);
  header.set_outer(world);
  header.set_ulysses(1);
  header.set_strategy("SELECTED");
  header.set_host(rank < (world + 1) / 2 ? "a" : "b");
  header.set_device("CPU");
  header.set_threads(1);
  header.set_job_kind("train");
  header.set_job_title("synthetic");
  header.set_job_identity("0123456789abcdef");
  header.set_asked_steps(steps);
  header.set_heads(1);
  events::Group& group = *header.add_groups();
  group.set_name("sp.outer");
  for (int member = 0; member < world; ++member) group.add_members(member);
  return header;
}

int64_t make_step(const SyntheticStep& plan, int64_t number, int64_t begin, int64_t& sequence,
                  std::vector<RecordedStep>& ranks, std::vector<NameTable>& names) {
  const size_t world = plan.ranks.size();
  std::vector<int64_t> now(world, begin);
  ranks.assign(world, {});
  const auto interval = [&](size_t r, Activity activity, Phase phase, int layer, const char* name,
                            int64_t length) {
    const int64_t at = now[r] + plan.ranks[r].clock;
    ranks[r].intervals.push_back({activity, phase, static_cast<int16_t>(layer),
                                  names[r].number_of(name), at, at + length, true});
    now[r] += length;
  };
  const auto communicate = [&](comm::OpKind kind, Phase phase, int layer, int64_t overlap,
                               int64_t bytes) {
    std::vector<int64_t> starts(world);
    for (size_t r = 0; r < world; ++r) starts[r] = now[r] - overlap;
    const int64_t last = *std::max_element(starts.begin(), starts.end());
    for (size_t r = 0; r < world; ++r) {
      RecordedOperation op;
      op.op = kind;
      op.phase = phase;
      op.layer = static_cast<int16_t>(layer);
      op.sequence = sequence;
      op.start_ns = starts[r] + plan.ranks[r].clock;
      op.end_ns = last + plan.transfer + plan.ranks[r].clock;
      op.sent_bytes = bytes;
      op.messages = 1;
      op.volume_bytes = bytes;
      ranks[r].operations.push_back(op);
      ranks[r].sent.push_back({0, static_cast<int>((r + 1) % world), bytes});
      now[r] = std::max(now[r], last + plan.transfer);
    }
    ++sequence;
  };
  for (size_t r = 0; r < world; ++r) {
    ranks[r].step = number;
    ranks[r].begin_ns = begin + plan.ranks[r].clock;
    ranks[r].tokens = 10;
    ranks[r].all_tokens = 10 * static_cast<int64_t>(world);
    ranks[r].layers.resize(2);
    for (RecordedLayer& layer : ranks[r].layers) {
      layer.density.add(0.5);
      layer.coverage.add(0.25);
      layer.head_density = {{1, 2}};
      layer.head_coverage = {{1, 4}};
    }
    interval(r, Activity::kDataWait, Phase::kOther, -1, "data.load", plan.ranks[r].load);
    interval(r, Activity::kCompute, Phase::kForward, 0, "attention.local",
             plan.ranks[r].compute[0]);
  }
  communicate(comm::OpKind::kExchange, Phase::kForward, 0, plan.overlap, kExchangeBytes);
  for (size_t r = 0; r < world; ++r) {
    interval(r, Activity::kCopy, Phase::kForward, 1, "attention.pack", plan.ranks[r].copy);
    interval(r, Activity::kCompute, Phase::kForward, 1, "attention.local",
             plan.ranks[r].compute[1]);
  }
  communicate(comm::OpKind::kExchange, Phase::kForward, 1, plan.overlap, kExchangeBytes);
  for (size_t r = 0; r < world; ++r) {
    interval(r, Activity::kCompute, Phase::kOptimizer, -1, "optimizer", plan.ranks[r].tail);
  }
  communicate(comm::OpKind::kAllReduce, Phase::kOptimizer, -1, 0, kSumBytes);
  const int64_t end = *std::max_element(now.begin(), now.end());
  for (RecordedStep& step : ranks) step.wall_ns = end - begin;
  return end;
}

void write_synthetic(const std::string& folder, const SyntheticStep& plan, int64_t steps) {
  const size_t world = plan.ranks.size();
  std::vector<EventWriter> files;
  files.reserve(world);
  for (size_t r = 0; r < world; ++r) {
    files.emplace_back(event_file_path(folder, static_cast<int>(r)),
                       synthetic_header(static_cast<int>(r), static_cast<int>(world), steps));
  }
  std::vector<NameTable> names(world);
  int64_t now = 0, sequence = 0;
  for (int64_t step = 0; step < steps; ++step) {
    std::vector<RecordedStep> ranks;
    now = make_step(plan, step, now, sequence, ranks, names);
    for (size_t r = 0; r < world; ++r) {
      for (uint32_t n = 0; n < names[r].size(); ++n) files[r].names().number_of(names[r][n]);
      files[r].append(ranks[r]);
    }
  }
  for (size_t r = 0; r < world; ++r) {
    events::End end;
    end.set_peak_bytes(1000 + static_cast<int64_t>(r));
    end.set_parameters_bytes(100);
    end.set_gradients_bytes(100);
    end.set_moments_bytes(200);
    files[r].end(end);
  }
}

}  // namespace sprocket::profile::testing

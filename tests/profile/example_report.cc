#include "tests/profile/example_report.h"

namespace sprocket::testing {
namespace {

using namespace profile;

constexpr int kRanks = 8, kLayers = 3;

// Eight steps of about 200 ms; the parts of a step are the same shares of each.
constexpr double kStepMs[] = {201.5, 199.25, 200.5, 198.75, 200.25, 199.5, 200.75, 199.5};

std::vector<double> share_of_steps(double share) {
  std::vector<double> ms;
  for (const double step : kStepMs) ms.push_back(share * step);
  return ms;
}

RankMemory memory_of(int rank) {
  return {.peak_bytes = 900'000'000 + rank,
          .parameters_bytes = 300'000'000,
          .gradients_bytes = 300'000'000,
          .moments_bytes = 75'000'000,
          .rest_bytes = 225'000'000 + rank,
          .tensors_peak_bytes = 800'000'000};
}

OperationRow operation(const std::string& group, const std::string& op, const std::string& phase,
                       double transfer_ms, double payload_bytes) {
  return {.group = group,
          .op = op,
          .phase = phase,
          .calls = 3,
          .messages = 6,
          .payload_bytes = payload_bytes,
          .wire_bytes = payload_bytes,
          .between_nodes_bytes = payload_bytes / 4,
          .transfer_ms = transfer_ms,
          .wait_ms = 2.5,
          .matched = 1,
          .busbw_gb_s = payload_bytes / transfer_ms / 1e6,
          .link_gb_s = 12.5,
          .link_share = payload_bytes / transfer_ms / 1e6 / 12.5};
}

}  // namespace

Report example_report() {
  Report r;
  r.program = {"sprocket", "0.9.0"};
  r.job = {"train", "tiny, 1,024 tokens, VSA, data 2 x outer 2 x ulysses 2",
           "name: \"tiny\"\nmodel { layers: 3 }\n", "8c1f2a90d7e34b55"};
  r.machine = {{{"alpha", 4}, {"beta", 4}}, "CPU", 2};
  r.mesh = {2, 2, 2, "SELECTED"};
  r.window = {.first_step = 2,
              .steps = 8,
              .asked = 20,
              .complete = false,
              .missing_ranks = {7},
              .lost_records = 12,
              .notes = {"rank 7 ended in step 10"}};
  r.verdict = {"step 0.2 s: compute 60 %", "exposed communication 20 %"};
  r.step = {0.2, 0.19975, {}, 81'920};
  for (const double ms : kStepMs) r.step.each_seconds.push_back(1e-3 * ms);
  r.shares = {0.6, 0.2, 0.1, 0.04, 0.06, 0.35, 0.05};
  r.each = {share_of_steps(0.6),  share_of_steps(0.2),  share_of_steps(0.1),
            share_of_steps(0.04), share_of_steps(0.06), share_of_steps(0.05)};
  r.flops = {4e12, 2.5e12, 1e14, 0.2, 0.125};
  for (int rank = 0; rank < kRanks; ++rank) {
    r.ranks.push_back({.rank = rank,
                       .host = rank < 4 ? "alpha" : "beta",
                       .step_ms = 200,
                       .compute_ms = 120,
                       .exposed_ms = 40,
                       .copies_ms = 20,
                       .data_wait_ms = 8,
                       .other_ms = 12,
                       .communication_ms = 60,
                       .wait_ms = 10,
                       .caused_wait_ms = rank == 3 ? 70.0 : 0.0,
                       .sent_bytes = 5e7,
                       .tokens = 2048,
                       .memory = memory_of(rank)});
  }
  r.operations = {operation("sp.outer", "exchange", "forward", 20, 2e7),
                  operation("sp.outer", "exchange", "backward", 15, 1.5e7),
                  operation("sp.ulysses", "all_to_all", "forward", 5, 1e7),
                  operation("world", "all_reduce", "optimizer", 4, 5e6)};
  r.slowest = {{.group = "sp.outer",
                .index = 1,
                .sequence = 412,
                .op = "exchange",
                .phase = "forward",
                .layer = 2,
                .step = 5,
                .ms = 31.5,
                .transfer_ms = 7.25,
                .late_rank = 3}};
  for (int layer = 0; layer < kLayers; ++layer) {
    r.layers.push_back({.layer = layer,
                        .compute_ms = 38,
                        .communication_ms = 18,
                        .exposed_ms = 12,
                        .wait_ms = 3,
                        .density = Range{0.125, 0.1, 0.15},
                        .coverage = Range{0.3, 0.25, 0.4},
                        .imbalance = 0.05,
                        .slowest_rank = 3});
  }
  r.heads = Heads{{{0.1, 0.15}, {0.1, 0.15}, {0.125, 0.125}},
                  std::vector<std::vector<double>>{{0.3, 0.3}, {0.25, 0.35}, {0.3, 0.3}}};
  r.kernels = {{.name = "attention.local",
                .activity = "compute",
                .phase = "backward",
                .calls = 3,
                .ms = 60,
                .flops = 9e10,
                .bytes = 3e8},
               {.name = "attention.local",
                .activity = "compute",
                .phase = "forward",
                .calls = 3,
                .ms = 30,
                .flops = 3.6e10,
                .bytes = 1.5e8},
               {.name = "loss", .activity = "compute", .phase = "forward", .calls = 1, .ms = 25},
               {.name = "attention.pack",
                .activity = "copy",
                .phase = "forward",
                .calls = 12,
                .ms = 20,
                .bytes = 8e8}};
  r.bytes.assign(4, std::vector<double>(4, 1e7));
  for (int i = 0; i < 4; ++i) r.bytes[i][i] = 5e6;
  r.bytes_block = 2;
  r.memory.emplace();
  static_cast<RankMemory&>(*r.memory) = memory_of(6);
  r.memory->rank = 6;
  r.remote_kv = {"FETCH_AGAIN", 6, 950'000'000, 880'000'000, 900'000'000};
  r.prediction = Prediction{
      "two machines",
      {{"attention forward, kernels, a layer", 9.5, 10, -0.05}, {"step", 190, 200, -0.05}},
      Advice{"data 2 x outer 1 x ulysses 4", 21, "sprocket plan --all"}};
  r.overhead = {0.004, 0.2008, 0.2, 8, 420, 0.35};
  r.curves = Curves{{{0, 1.5}, {1, 1.25}}, {{0, 70'000}, {1, 81'000}}};
  r.timeline =
      StepTimeline{4,
                   {"attention_forward", "sp.outer exchange"},
                   {{0, 0, {{0, 0, 1, 0, 10.5, 2000}, {1, 1, 1, 0, 500, 900.25}}},
                    {1, -36'000'000'000.5, {{0, 0, 1, 2, 12, 1990}, {1, 1, 2, -1, 3000, 2}}}}};
  r.phases = {"other", "forward", "backward", "recompute", "optimizer", "sample"};
  return r;
}

}  // namespace sprocket::testing

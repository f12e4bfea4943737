// The planner's bytes and messages equal what communicators count when the same attention runs.
#include <algorithm>

#include <gtest/gtest.h>

#include "parallel/comm/recorder.h"
#include "runtime/plan/candidates.h"
#include "runtime/plan/job_specs.h"
#include "tests/comm/thread_ranks.h"
#include "tests/parallel/attention_case.h"

namespace sprocket::runtime {
namespace {

using parallel::testing::AttentionCase;
using parallel::testing::AttentionResult;

struct Sums {
  int64_t forward_bytes = 0, forward_messages = 0, backward_bytes = 0, backward_messages = 0;
  bool operator==(const Sums&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Sums& sums) {
  return out << sums.forward_bytes << " bytes in " << sums.forward_messages << " forward, "
             << sums.backward_bytes << " in " << sums.backward_messages << " backward";
}

void add_counted(Sums& sums, const comm::Communicator& group, int64_t first) {
  for (const auto& record : group.recorder().since(first)) {
    const bool forward = record.position.phase == Phase::kForward;
    (forward ? sums.forward_bytes : sums.backward_bytes) += record.bytes_sent;
    (forward ? sums.forward_messages : sums.backward_messages) += record.messages_sent;
  }
}

struct RealRun {
  std::vector<AttentionResult> results;
  std::vector<Sums> counted;
};

RealRun run_ranks(const AttentionCase& c, const parallel::testing::AttentionTensors& inputs) {
  const int ranks = c.mesh.sequence();
  RealRun run{std::vector<AttentionResult>(ranks), std::vector<Sums>(ranks)};
  std::vector<Timeline> timelines(ranks);
  std::vector<comm::CommunicatorOptions> options(ranks);
  for (int rank = 0; rank < ranks; ++rank) options[rank].timeline = &timelines[rank];
  comm::testing::run_ranks(options, [&](comm::Communicator& world) {
    const parallel::Mesh mesh(world.split(0, world.rank(), "world"), c.mesh);
    const int64_t outer = mesh.tensors().outer().recorder().next_sequence();
    const int64_t ulysses = mesh.tensors().ulysses().recorder().next_sequence();
    const int64_t sequence = mesh.sequence().recorder().next_sequence();
    run.results[world.rank()] = parallel::testing::run_sharded(c, inputs, mesh);
    add_counted(run.counted[world.rank()], mesh.tensors().outer(), outer);
    add_counted(run.counted[world.rank()], mesh.tensors().ulysses(), ulysses);
    add_counted(run.counted[world.rank()], mesh.sequence(), sequence);
  });
  return run;
}

struct Subject {
  const char* name;
  const char* attention;
  const char* precision;
  std::vector<std::string> changes = {};
};

// Text before the video, in chunks of which the last is partial.
const std::vector<std::string> kText = {"model { family: COGVIDEOX text_tokens: 67 }"};

class PlannedTraffic : public ::testing::TestWithParam<Subject> {};

// 2 x 3 x 3 cubes, the last of each axis partial.
constexpr char kModel[] = "model { dim: 48 heads: 6 } training { global_batch: 1 } ";
const config::LatentShape kShape{16, 5, 18, 22};

TEST_P(PlannedTraffic, EqualsWhatIsCountedOnEveryMesh) {
  const std::string text = std::string(kModel) + GetParam().attention + GetParam().precision;
  const config::LoadedJob loaded = config::parse_job(text, "job.txtpb", GetParam().changes, {});
  AttentionCase c;
  c.layout = token_layout_spec(loaded.job, kShape);
  c.batch = 1;
  c.heads = loaded.job.model().heads();
  c.head_dim = loaded.job.model().dim() / c.heads;
  c.spec = attention_spec(loaded.job.attention(), 0);
  c.dtype = loaded.job.compute().precision() == config::Compute::BF16 ? at::kBFloat16 : at::kFloat;
  c.keep_lse = false;
  c.layer = 0;
  const auto inputs = parallel::testing::make_inputs(c);
  SelectionSource source;
  c.mesh = {1, 1, 1};
  source.table = run_ranks(c, inputs).results[0].selection.table;

  int legal = 0;
  for (const int world : {2, 3, 4, 6, 8}) {
    ClusterModel cluster;
    cluster.nodes = world;
    cluster.links[1].bytes_per_second = 1e9;
    cluster.device = {1e12, 1e12, 1e12, 1e12, 1e9, 0, 1e12};
    LayerPlanner planner(loaded.job, kShape, 0, source, cluster);
    for (const Candidate& candidate : make_candidates(loaded, kShape, planner)) {
      if (!candidate.legal() || candidate.parallel.data() > 1) continue;
      ++legal;
      config::Job job = loaded.job;
      *job.mutable_parallel() = candidate.parallel;
      c.mesh = mesh_shape(job);
      c.strategy = strategy_spec(job, 1);
      const RealRun real = run_ranks(c, inputs);
      const LayerPlan plan = planner.plan(job);
      for (int rank = 0; rank < world; ++rank) {
        const Sums planned{plan.bytes(rank, Phase::kForward), plan.messages(rank, Phase::kForward),
                           plan.bytes(rank, Phase::kBackward),
                           plan.messages(rank, Phase::kBackward)};
        EXPECT_EQ(planned, real.counted[rank]) << name_of(candidate) << ", rank " << rank;
        for (const parallel::TrafficRow& row : plan.traffic[rank]) {
          int64_t sum = 0;
          for (const int64_t bytes : row.bytes_to) sum += bytes;
          EXPECT_EQ(sum, row.bytes) << row.what;
        }
      }
      const Sums& busiest = real.counted[plan.busiest()];
      EXPECT_EQ(busiest, (Sums{candidate.forward_bytes, candidate.forward_messages,
                               candidate.backward_bytes, candidate.backward_messages}))
          << name_of(candidate);
    }
  }
  EXPECT_GE(legal, 15);
}

INSTANTIATE_TEST_SUITE_P(
    Methods, PlannedTraffic,
    ::testing::Values(
        Subject{"Dense", "", ""},
        Subject{"Vsa", "attention { method: VSA vsa { sparsity { start: 0.8 } } } ", ""},
        // Above gather_above on some meshes, below it on others.
        Subject{
            "VsaNearlyEverything",
            "attention { method: VSA vsa { sparsity { start: 0.6 } } } parallel { gather_above: "
            "0.8 gradient_wire: ACCUMULATOR } ",
            ""},
        Subject{"VsaBf16", "attention { method: VSA vsa { sparsity { start: 0.8 } } } ",
                "compute { precision: BF16 }"},
        Subject{"VsaBudget",
                "attention { method: VSA domains: 12 max_coverage { start: 0.2 } "
                "budget_head_group: 1 vsa { sparsity { start: 0.8 } } } ",
                ""},
        Subject{"Bsa", "attention { method: BSA bsa { sparsity { start: 0.8 } } } ", ""},
        Subject{"Psa", "attention { method: PSA block_tokens: 16 psa { samples: 8 } } ", ""},
        Subject{"Asa",
                "attention { method: ASA block_tokens: 16 asa { samples: 8 global_width: 6 } } ",
                ""},
        Subject{"SlidingTile", "attention { method: SLIDING_TILE } ", ""},
        Subject{"DenseWithText", "", "", kText},
        Subject{"VsaWithText", "attention { method: VSA vsa { sparsity { start: 0.8 } } } ", "",
                kText},
        Subject{"VsaBudgetWithText",
                "attention { method: VSA domains: 12 max_coverage { start: 0.2 } "
                "budget_head_group: 1 vsa { sparsity { start: 0.8 } } } ",
                "", kText},
        Subject{"AsaWithText",
                "attention { method: ASA block_tokens: 16 asa { samples: 8 global_width: 6 } } ",
                "", kText},
        Subject{"SlidingTileWithText", "attention { method: SLIDING_TILE } ", "", kText}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sprocket::runtime

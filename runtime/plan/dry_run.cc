#include "runtime/plan/dry_run.h"

#include <algorithm>

#include <fmt/format.h>

#include "configs/defaults.h"
#include "configs/roles.h"
#include "runtime/plan/job_specs.h"
#include "runtime/plan/memory_estimate.h"
#include "runtime/plan/remote_kv.h"
#include "runtime/plan/units.h"

namespace sprocket::runtime {
namespace {

constexpr int kMostRanksListed = 64;

std::string size(int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes < (int64_t{1} << 30)) return fmt::format("{:.1f} MiB", value / (1 << 20));
  return fmt::format("{:.2f} GiB", value / (1 << 30));
}

std::string range(int32_t first, int32_t end) {
  if (first >= end) return "none";
  return end - first == 1 ? fmt::format("{}", first) : fmt::format("{}-{}", first, end - 1);
}

struct Plan {
  Plan(const config::Job& job, const config::LatentShape& shape)
      : mesh(mesh_shape(job)),
        layout(parallel::make_token_layout(token_layout_spec(job, shape))),
        shards(parallel::make_shard_plan(layout, mesh)) {}

  // Domains that lie in an outer shard.
  std::string domains_of(int outer) const {
    if (layout.spec.domains == 1) return "-";
    int first = -1, end = -1;
    for (int g = 0; g < layout.spec.domains; ++g) {
      if (layout.domain_blocks[g] < shards.outer_blocks[outer] ||
          layout.domain_blocks[g + 1] > shards.outer_blocks[outer + 1]) {
        continue;
      }
      if (first < 0) first = g;
      end = g + 1;
    }
    return first < 0 ? "none" : range(first, end);
  }

  parallel::MeshShape mesh;
  parallel::TokenLayout layout;
  parallel::ShardPlan shards;
};

// Of a text that stands before the video.
std::string text_line(const parallel::TokenLayout& layout) {
  if (layout.prefix_blocks() == 0) return "";
  return fmt::format("  behind {} tokens of text in {} block{}: a sequence of {}\n",
                     layout.prefix_tokens(), layout.prefix_blocks(),
                     layout.prefix_blocks() == 1 ? "" : "s", grouped(layout.tokens()));
}

std::string mesh_text(const config::Job& job, const config::LatentShape& shape, const Plan& plan,
                      const std::string& shape_source) {
  const auto& spec = plan.layout.spec;
  std::string text = fmt::format(
      "Video\n  latent {} x {} x {} x {} ({})\n  tokens {} x {} x {} = {} in {} blocks of {} x {} "
      "x {}, "
      "{} domain{}\n{}\n",
      shape.channels, shape.t, shape.h, shape.w, shape_source, spec.grid.t, spec.grid.h,
      spec.grid.w, grouped(spec.grid.tokens()), plan.layout.blocks() - plan.layout.prefix_blocks(),
      spec.cube.t, spec.cube.h, spec.cube.w, spec.domains, spec.domains == 1 ? "" : "s",
      text_line(plan.layout));
  text += fmt::format("Mesh\n  {} rank{} = data {} x outer {} x ulysses {}, strategy {}\n",
                      plan.mesh.world(), plan.mesh.world() == 1 ? "" : "s", plan.mesh.data,
                      plan.mesh.outer, plan.mesh.ulysses,
                      config::Parallel::Strategy_Name(job.parallel().strategy()));
  text += fmt::format("  {:>5} {:>5} {:>6} {:>8} {:>10} {:>10} {:>8}\n", "rank", "data", "outer",
                      "ulysses", "tokens", "blocks", "domains");
  const int listed = std::min(plan.mesh.world(), kMostRanksListed);
  for (int rank = 0; rank < listed; ++rank) {
    const parallel::MeshCoordinate at = parallel::coordinate_of(rank, plan.mesh);
    text += fmt::format(
        "  {:>5} {:>5} {:>6} {:>8} {:>10} {:>10} {:>8}\n", rank, at.data, at.outer, at.ulysses,
        grouped(plan.shards.tokens_of(at.outer * plan.mesh.ulysses + at.ulysses)),
        range(plan.shards.outer_blocks[at.outer], plan.shards.outer_blocks[at.outer + 1]),
        plan.domains_of(at.outer));
  }
  if (listed < plan.mesh.world()) {
    text += fmt::format("  ranks {} to {} continue the pattern\n", listed, plan.mesh.world() - 1);
  }
  return text + "\n";
}

bool is_bound(const config::Job& job, const Plan& plan) {
  return job.parallel().strategy() == config::Parallel::SELECTED && plan.mesh.outer > 1 &&
         job.attention().method() != config::Attention::DENSE;
}

std::string traffic_text(const config::Job& job, const config::LatentShape& shape, const Plan& plan,
                         int64_t step) {
  const std::vector<RankTraffic> ranks = layer_traffic(job, shape, step);
  std::string text =
      fmt::format("Sent to other ranks by a rank, per layer and micro-batch, at step {}{}\n", step,
                  is_bound(job, plan) ? " (selected k, v: an upper bound)" : "");
  text += fmt::format("  {:>13} {:>18} {:>9} {:>18} {:>9}\n", "sequence rank", "forward bytes",
                      "messages", "backward bytes", "messages");
  const int listed = std::min<int>(static_cast<int>(ranks.size()), kMostRanksListed);
  for (int rank = 0; rank < listed; ++rank) {
    text += fmt::format(
        "  {:>13} {:>18} {:>9} {:>18} {:>9}\n", rank, grouped(ranks[rank].bytes(Phase::kForward)),
        ranks[rank].messages(Phase::kForward), grouped(ranks[rank].bytes(Phase::kBackward)),
        ranks[rank].messages(Phase::kBackward));
  }
  const auto total = [](const RankTraffic& rank) {
    return rank.bytes(Phase::kForward) + rank.bytes(Phase::kBackward);
  };
  const auto busiest = std::max_element(
      ranks.begin(), ranks.end(),
      [&](const RankTraffic& a, const RankTraffic& b) { return total(a) < total(b); });
  if (!busiest->rows.empty()) {
    text += fmt::format("  of which sequence rank {}:\n", busiest - ranks.begin());
    for (const parallel::TrafficRow& row : busiest->rows) {
      text += fmt::format("    {:<11} {:<9} {:<28} {:>18} bytes {:>5} messages\n", row.group,
                          name_of(row.phase), row.what, grouped(row.bytes), row.messages);
    }
  }
  return text + "\n";
}

int fullest_rank(const Plan& plan) {
  int fullest = 0;
  for (int rank = 1; rank < plan.mesh.sequence(); ++rank) {
    if (plan.shards.tokens_of(rank) > plan.shards.tokens_of(fullest)) fullest = rank;
  }
  return fullest;
}

std::string memory_table(const MemoryEstimate& estimate, int rank, const std::string& about) {
  std::string text = fmt::format(
      "Memory of sequence rank {}, which has the most tokens (estimate; {})\n", rank, about);
  for (const MemoryRow& row : estimate.rows) {
    text += fmt::format("  {:<44} {:>12}\n", row.what, size(row.bytes));
  }
  return text + fmt::format("  {:<44} {:>12}\n", "total", size(estimate.total()));
}

std::string memory_text(const config::Job& job, const config::LatentShape& shape,
                        const Plan& plan) {
  const int fullest = fullest_rank(plan);
  const std::string text =
      memory_table(estimate_training_memory(job, rank_share(job, shape, fullest)), fullest,
                   fmt::format("{} parameters", grouped(parameter_count(job))));
  if (!remote_kv_is_open(job)) return text;
  const RemoteKvRoom room = training_room(job, shape, fullest, 0);
  if (room.fetched == room.kept) return text;
  return text + fmt::format("  {:<44} {:>12}\n", "where a rank has less (remote_kv: AUTO)",
                            size(room.fetched));
}

// A line for each network of a distillation.
std::string networks_text(const config::Job& job, const config::LatentShape& shape) {
  constexpr const char* kRow = "  {:<11} {:<12} {:>12} {:<10} {:>14} {:>18} {:>18}\n";
  std::string text =
      "Networks (mesh: data x outer x ulysses; bytes: of the sequence rank that sends most, per "
      "layer and micro-batch, at step 0)\n";
  text += fmt::format(fmt::runtime(kRow), "role", "attention", "mesh", "strategy", "trained",
                      "forward bytes", "backward bytes");
  for (const auto role : {config::NetworkRole::kStudent, config::NetworkRole::kTeacher,
                          config::NetworkRole::kFakeScore}) {
    const config::Job own = config::role_job(job, role);
    const bool trained = role != config::NetworkRole::kTeacher;
    int64_t forward = 0, backward = 0;
    for (const RankTraffic& rank : layer_traffic(own, shape, 0)) {
      forward = std::max(forward, rank.bytes(Phase::kForward));
      backward = std::max(backward, rank.bytes(Phase::kBackward));
    }
    const parallel::MeshShape mesh = mesh_shape(own);
    text += fmt::format(fmt::runtime(kRow), config::name_of(role),
                        config::Attention::Method_Name(own.attention().method()),
                        fmt::format("{} x {} x {}", mesh.data, mesh.outer, mesh.ulysses),
                        config::Parallel::Strategy_Name(own.parallel().strategy()),
                        trained ? grouped(trained_count(own)) : "-", grouped(forward),
                        trained ? grouped(backward) : "-");
  }
  return text + "\n";
}

}  // namespace

int64_t RankTraffic::bytes(Phase phase) const {
  int64_t sum = 0;
  for (const auto& row : rows) sum += row.phase == phase ? row.bytes : 0;
  return sum;
}

int64_t RankTraffic::messages(Phase phase) const {
  int64_t sum = 0;
  for (const auto& row : rows) sum += row.phase == phase ? row.messages : 0;
  return sum;
}

std::vector<RankTraffic> layer_traffic(const config::Job& job, const config::LatentShape& shape,
                                       int64_t step) {
  const Plan plan(job, shape);
  const parallel::AttentionSpec spec = attention_spec(job.attention(), step);
  parallel::AttentionShape attention;
  attention.batch = job.training().micro_batch();
  attention.heads = job.model().heads();
  attention.head_dim = job.model().dim() / job.model().heads();
  attention.dtype = compute_dtype(job);
  attention.spec = spec;
  std::vector<RankTraffic> ranks;
  for (int rank = 0; rank < plan.mesh.sequence(); ++rank) {
    const parallel::OuterShards shards =
        parallel::key_segments(plan.layout, plan.shards, rank / plan.mesh.ulysses, spec);
    const parallel::SelectedRows rows = parallel::selected_rows_bound(
        plan.layout, shards, attention.batch, attention.heads / plan.mesh.ulysses, spec);
    ranks.push_back({parallel::attention_traffic(plan.layout, plan.shards, rank, attention,
                                                 strategy_spec(job, 1), rows)});
  }
  return ranks;
}

namespace {

std::string resolved_text(const config::LoadedJob& loaded, const config::LatentShape& shape,
                          const std::string& shape_source) {
  config::check_latent_shape(loaded, shape, shape_source);
  return fmt::format("# {}, with every default written out\n{}\n", loaded.name,
                     config::to_text(loaded.job));
}

constexpr const char* kNothingRun = "\nDry run: nothing was run and nothing was written.\n";

}  // namespace

std::string dry_run_report(const config::LoadedJob& loaded, const config::LatentShape& shape,
                           const std::string& shape_source) {
  const config::Job& job = loaded.job;
  std::string text = resolved_text(loaded, shape, shape_source);
  const Plan plan(job, shape);
  text += mesh_text(job, shape, plan, shape_source);
  text += traffic_text(job, shape, plan, 0);
  const int64_t last = job.training().steps() - 1;
  const parallel::AttentionSpec at_first = attention_spec(job.attention(), 0),
                                at_last = attention_spec(job.attention(), last);
  if (at_first.budget != at_last.budget) text += traffic_text(job, shape, plan, last);
  return text + memory_text(job, shape, plan) + kNothingRun;
}

std::string distillation_dry_run_report(const config::LoadedJob& loaded,
                                        const config::LatentShape& shape,
                                        const std::string& shape_source) {
  const config::Job& job = loaded.job;
  const std::string resolved = resolved_text(loaded, shape, shape_source);
  const Plan plan(job, shape);
  const int fullest = fullest_rank(plan);
  return resolved + mesh_text(job, shape, plan, shape_source) + networks_text(job, shape) +
         memory_table(
             estimate_distillation_memory(job, shape, fullest), fullest,
             fmt::format("three networks of {} parameters", grouped(parameter_count(job)))) +
         kNothingRun;
}

}  // namespace sprocket::runtime

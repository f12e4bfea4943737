#include "runtime/plan/layer_planner.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "runtime/plan/job_specs.h"

namespace sprocket::runtime {
namespace {

using comm::OpKind;
using parallel::MethodKind;
using parallel::TrafficRow;

OuterKind outer_kind(const parallel::StrategySpec& spec, int degree) {
  if (degree == 1) return OuterKind::kLocal;
  switch (spec.outer) {
    case parallel::OuterStrategyKind::kAllGather:
      return OuterKind::kAllGather;
    case parallel::OuterStrategyKind::kRing:
      return OuterKind::kRing;
    case parallel::OuterStrategyKind::kSelected:
      return OuterKind::kSelected;
  }
  throw InternalError("a strategy has no cost");
}

bool is_ulysses(const TrafficRow& row) { return row.group == "sp.ulysses"; }

bool is_gradient(const TrafficRow& row) { return row.what.starts_with("gradient"); }

// Nobody waits for it.
bool is_hidden(const TrafficRow& row) { return row.group == "sp"; }

// The transfers that a row is one of.
Transfers& place_of(AttentionTransfers& transfers, const TrafficRow& row) {
  const bool forward = row.phase == Phase::kForward;
  if (is_ulysses(row)) {
    if (forward) return row.what == "out" ? transfers.ulysses_out : transfers.ulysses_in;
    return row.what == "gradient of out" ? transfers.ulysses_gradient_out
                                         : transfers.ulysses_gradient_in;
  }
  if (row.op != OpKind::kExchange) {
    return forward ? transfers.summaries : transfers.summary_gradients;
  }
  if (forward) return transfers.fetch;
  return is_gradient(row) ? transfers.give_back : transfers.fetch_again;
}

// Several operations of one place follow each other.
void append(Transfers& to, const Transfers& more) {
  if (to.empty()) {
    to = more;
    return;
  }
  for (size_t rank = 0; rank < to.size(); ++rank) {
    to[rank].seconds += more[rank].seconds;
    to[rank].overlap = std::min(to[rank].overlap, more[rank].overlap);
  }
}

double selection_operations(const parallel::AttentionSpec& spec,
                            const parallel::TokenLayout& layout, double block_pairs, int head_dim) {
  const double scores = 2.0 * head_dim * block_pairs;
  const auto sampled = [&](const parallel::SamplingSpec& sampling) {
    const auto capacity = static_cast<double>(layout.block_capacity());
    const double samples = sampling.per_block == 0 ? capacity : sampling.per_block;
    return samples * samples * scores;
  };
  switch (spec.method) {
    case MethodKind::kDense:
    case MethodKind::kSlidingTile:
      return 0;
    case MethodKind::kVsa: {
      const double pieces = double{1} * spec.vsa.query_parts * spec.vsa.key_parts;
      const bool coarse = spec.vsa.coarse != parallel::CoarseBranch::kNone;
      return (pieces + (coarse ? 1 : 0)) * scores;
    }
    case MethodKind::kBsa:
      return scores;
    case MethodKind::kPsa:
      return sampled(spec.psa.sampling);
    case MethodKind::kAsa:
      return sampled(spec.asa.sampling);
  }
  throw InternalError("a method has no cost");
}

// Tensors of the shard's size that are read to make means and samples.
double summary_tensors(const parallel::AttentionSpec& spec, const parallel::TokenLayout& layout) {
  const auto share = [&](const parallel::SamplingSpec& sampling) {
    return sampling.per_block == 0
               ? 1.0
               : std::min(1.0, sampling.per_block / static_cast<double>(layout.block_capacity()));
  };
  switch (spec.method) {
    case MethodKind::kDense:
    case MethodKind::kSlidingTile:
      return 0;
    case MethodKind::kVsa:
      return 3 + (spec.vsa.query_parts > 1) + (spec.vsa.key_parts > 1);
    case MethodKind::kBsa:
      return 3;  // queries once to prune and once to pool
    case MethodKind::kPsa:
      return 2 * share(spec.psa.sampling);
    case MethodKind::kAsa:
      return 2 * share(spec.asa.sampling);
  }
  throw InternalError("a method has no cost");
}

// Share of the query rows that are computed.
double kept_queries(const parallel::AttentionSpec& spec) {
  return spec.method == MethodKind::kBsa ? spec.bsa.pruning.keep_ratio.value() : 1;
}

}  // namespace

int64_t LayerPlan::bytes(int rank, Phase phase) const {
  int64_t sum = 0;
  for (const TrafficRow& row : traffic[rank]) sum += row.phase == phase ? row.bytes : 0;
  return sum;
}

int64_t LayerPlan::messages(int rank, Phase phase) const {
  int64_t sum = 0;
  for (const TrafficRow& row : traffic[rank]) sum += row.phase == phase ? row.messages : 0;
  return sum;
}

int LayerPlan::busiest() const {
  int most = 0;
  const auto total = [&](int rank) {
    return bytes(rank, Phase::kForward) + bytes(rank, Phase::kBackward);
  };
  for (int rank = 1; rank < static_cast<int>(traffic.size()); ++rank) {
    if (total(rank) > total(most)) most = rank;
  }
  return most;
}

SelectionShards selection_shards(const parallel::TokenLayout& layout, int outer,
                                 const parallel::AttentionSpec& spec) {
  const parallel::ShardPlan plan = parallel::make_shard_plan(layout, {1, outer, 1});
  const parallel::OuterShards keys = parallel::key_segments(layout, plan, 0, spec);
  return {layout.block_offsets, plan.outer_blocks, keys.block_offsets, keys.blocks,
          outer > 1 ? layout.prefix_blocks() : 0};
}

parallel::SelectedRows selected_rows(const SelectionCounts& counts, const SelectionShards& shards,
                                     const parallel::MeshShape& mesh, int rank, int64_t batch,
                                     const parallel::StrategySpec& strategy) {
  const int self = rank / mesh.ulysses, heads = counts.heads() / mesh.ulysses;
  const int first = heads * (rank % mesh.ulysses), last = first + heads;
  const auto groups = parallel::fetch_groups(strategy, batch * heads);
  const auto groups_with_rows = [&](int consumer, int owner) {
    return std::count_if(groups.begin(), groups.end(), [&](const kernels::HeadRange& group) {
      for (int64_t i = group.first; i < group.last; ++i) {
        const int head = first + static_cast<int>(i % heads);
        if (counts.rows(consumer, owner, head, head + 1) > 0) return true;
      }
      return false;
    });
  };
  parallel::SelectedRows rows;
  int64_t needed = 0, remote = 0;
  for (int peer = 0; peer < mesh.outer; ++peer) {
    const bool own = peer == self;
    rows.sent.push_back(own ? 0 : batch * counts.rows(peer, self, first, last));
    rows.received.push_back(own ? 0 : batch * counts.rows(self, peer, first, last));
    rows.groups_sent.push_back(own ? 0 : groups_with_rows(peer, self));
    rows.groups_received.push_back(own ? 0 : groups_with_rows(self, peer));
    for (int owner = 0; owner < mesh.outer; ++owner) {
      if (owner == peer) continue;
      needed += batch * counts.rows(peer, owner, first, last);
      remote += batch * heads * shards.key_rows(owner);
    }
  }
  rows.gathered = static_cast<double>(needed) > strategy.gather_above * static_cast<double>(remote);
  return rows;
}

LayerPlanner::LayerPlanner(const config::Job& job, const config::LatentShape& shape, int64_t step,
                           SelectionSource source, ClusterModel cluster)
    : source_(std::move(source)),
      cluster_(std::move(cluster)),
      layout_(parallel::make_token_layout(token_layout_spec(job, shape))) {
  shape_.batch = job.training().micro_batch();
  shape_.heads = job.model().heads();
  shape_.head_dim = job.model().dim() / job.model().heads();
  shape_.dtype = compute_dtype(job);
  shape_.spec = attention_spec(job.attention(), step);
}

const LayerPlanner::Counts& LayerPlanner::counts_of(int outer) {
  const auto found = counts_.find(outer);
  if (found != counts_.end()) return found->second;
  SelectionShards shards = selection_shards(layout_, outer, shape_.spec);
  SelectionCounts counts = source_.table ? count_selection(*source_.table, shards)
                                         : count_figures(source_.density, source_.coverage,
                                                         static_cast<int>(shape_.heads), shards);
  return counts_.emplace(outer, Counts{std::move(shards), std::move(counts)}).first->second;
}

RankWork LayerPlanner::rank_work(const LayerPlan& plan, int rank, const Counts& counts,
                                 const parallel::SelectedRows& rows) const {
  const parallel::MeshShape& mesh = plan.shards.mesh;
  const int outer = rank / mesh.ulysses;
  const auto heads = static_cast<int>(shape_.heads) / mesh.ulysses;
  const int first = heads * (rank % mesh.ulysses);
  const auto batch = static_cast<double>(shape_.batch), dim = static_cast<double>(shape_.head_dim);
  const double queries = kept_queries(shape_.spec);
  RankWork work;
  work.own_elements = batch * static_cast<double>(plan.shards.tokens_of(rank)) *
                      static_cast<double>(shape_.heads) * dim;
  work.shard_elements = batch * static_cast<double>(counts.shards.query_rows(outer)) * heads * dim;
  work.key_elements = batch * static_cast<double>(counts.shards.key_rows(outer)) * heads * dim;
  work.query_rows = batch * queries * heads * static_cast<double>(counts.shards.query_rows(outer));
  for (int owner = 0; owner < mesh.outer; ++owner) {
    work.pairs.push_back(batch * queries * counts.counts.pairs(outer, owner, first, first + heads));
  }
  if (shape_.spec.method == MethodKind::kAsa && shape_.spec.asa.global_width > 0) {
    const double groups = static_cast<double>(layout_.tokens()) / shape_.spec.asa.global_width;
    work.pairs[outer] +=
        batch * heads * static_cast<double>(counts.shards.query_rows(outer)) * groups;
  }
  const auto sum = [](const std::vector<int64_t>& values) {
    return static_cast<double>(std::accumulate(values.begin(), values.end(), int64_t{0}));
  };
  const bool everything = plan.work.outer == OuterKind::kAllGather || rows.gathered;
  if (everything) {
    const int64_t remote = counts.shards.segment_offsets.back() - counts.shards.key_rows(outer);
    work.sent_elements = 2 * work.key_elements;  // one buffer for all peers
    work.returned_elements = work.sent_elements * (mesh.outer - 1);
    work.received_elements = 2 * batch * static_cast<double>(remote) * heads * dim;
  } else {
    work.sent_elements = work.returned_elements = 2 * dim * sum(rows.sent);
    work.received_elements = 2 * dim * sum(rows.received);
  }
  work.summary_elements = summary_tensors(shape_.spec, layout_) * work.shard_elements;
  const double block_pairs =
      batch * heads * (counts.shards.query_blocks[outer + 1] - counts.shards.query_blocks[outer]) *
      static_cast<double>(layout_.blocks());
  work.selection_operations =
      selection_operations(shape_.spec, layout_, block_pairs, static_cast<int>(shape_.head_dim));
  if (shape_.spec.method == MethodKind::kVsa &&
      shape_.spec.vsa.coarse != parallel::CoarseBranch::kNone) {
    // Scores again, and the gradients of probabilities, queries, keys and values.
    work.selection_gradient_operations = 5 * 2 * dim * block_pairs;
  }
  return work;
}

LayerPlan LayerPlanner::plan(const config::Job& job) {
  LayerPlan plan;
  const parallel::MeshShape mesh{1, job.parallel().outer(), job.parallel().ulysses()};
  const parallel::StrategySpec strategy = strategy_spec(job, 1);
  plan.shards = parallel::make_shard_plan(layout_, mesh);
  const Counts& counts = counts_of(mesh.outer);
  plan.density = counts.counts.density(counts.shards);
  plan.coverage = counts.counts.coverage(counts.shards);

  AttentionWork& work = plan.work;
  work.outer = outer_kind(strategy, mesh.outer);
  work.overlap = strategy.overlap;
  work.single_pass = strategy.single_pass;
  work.outer_degree = mesh.outer;
  work.ulysses_degree = mesh.ulysses;
  work.head_groups = parallel::head_groups(strategy, mesh, shape_.spec, shape_.heads);
  work.head_dim = static_cast<int>(shape_.head_dim);
  work.element = static_cast<double>(size_of(shape_.dtype));
  work.accumulator = shape_.dtype == DType::kF64 ? 8 : 4;
  work.gates = shape_.spec.coarse_gated() + shape_.spec.fine_gated();
  work.branches = shape_.spec.method == MethodKind::kVsa &&
                  (shape_.spec.vsa.coarse != parallel::CoarseBranch::kNone || work.gates > 0);
  for (int rank = 0; rank < mesh.sequence(); ++rank) {
    const parallel::SelectedRows rows =
        selected_rows(counts.counts, counts.shards, mesh, rank, shape_.batch, strategy);
    if (work.outer == OuterKind::kSelected && !rows.gathered) {
      work.fetch_groups = static_cast<int>(
          std::ssize(parallel::fetch_groups(strategy, shape_.batch * shape_.heads / mesh.ulysses)));
    }
    plan.traffic.push_back(
        parallel::attention_traffic(layout_, plan.shards, rank, shape_, strategy, rows));
    work.ranks.push_back(rank_work(plan, rank, counts, rows));
    plan.received_elements = std::max(plan.received_elements, work.ranks.back().received_elements);
  }
  add_transfers(plan);
  plan.cost = attention_cost(cluster_.device, work);
  return plan;
}

// Sequence rank s of the first replica is world rank s; the ranks of a node that belong to another
// replica do the same at the same time.
void LayerPlanner::add_transfers(LayerPlan& plan) const {
  const int degree = plan.shards.mesh.ulysses, ranks = plan.shards.mesh.sequence();
  const auto member = [&](const TrafficRow& row, int rank, int peer) {
    return is_ulysses(row) ? rank - rank % degree + peer : peer * degree + rank % degree;
  };
  for (size_t i = 0; i < plan.traffic.front().size(); ++i) {
    if (is_hidden(plan.traffic.front()[i])) continue;
    std::vector<Flow> flows(ranks), nodes(cluster_.node_of(ranks - 1) + 1);
    for (int rank = 0; rank < ranks; ++rank) {
      const TrafficRow& row = plan.traffic[rank][i];
      const auto peers = std::count_if(row.bytes_to.begin(), row.bytes_to.end(),
                                       [](int64_t bytes) { return bytes > 0; });
      // A ring's steps and the groups of heads of Ulysses are one transfer each; the groups that
      // the selected exchange fetches are messages of one.
      const double messages =
          peers > 0 ? static_cast<double>(row.messages) / static_cast<double>(peers) : 1;
      const bool together = plan.work.outer == OuterKind::kSelected && !is_ulysses(row);
      const double steps = together ? 1 : messages;
      for (int peer = 0; peer < static_cast<int>(row.bytes_to.size()); ++peer) {
        if (row.bytes_to[peer] == 0) continue;
        const int other = member(row, rank, peer);
        const LinkClass link = cluster_.link_between(rank, other);
        const double bytes = static_cast<double>(row.bytes_to[peer]) / steps;
        flows[rank].add_sent(link, bytes, together ? static_cast<int>(std::lround(messages)) : 1);
        flows[other].add_received(link, bytes);
      }
    }
    for (int rank = 0; rank < ranks; ++rank) {
      Flow& node = nodes[cluster_.node_of(rank)];
      const int first = cluster_.node_of(rank) * cluster_.devices;
      const double copies =
          static_cast<double>(cluster_.devices) / std::min(cluster_.devices, ranks - first);
      for (int which = 0; which < kLinkClasses; ++which) {
        node.sent[which] += copies * flows[rank].sent[which];
        node.received[which] += copies * flows[rank].received[which];
      }
    }
    Transfers times;
    for (int rank = 0; rank < ranks; ++rank) {
      times.push_back(transfer_time(cluster_, flows[rank], nodes[cluster_.node_of(rank)]));
    }
    append(place_of(plan.work.transfers, plan.traffic.front()[i]), times);
  }
}

}  // namespace sprocket::runtime

// The cost model against closed forms, and that it moves the way it must.
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "configs/cluster.h"
#include "runtime/plan/candidates.h"
#include "runtime/plan/coverage_model.h"
#include "runtime/plan/job_specs.h"
#include "runtime/plan/synthetic_selection.h"

namespace sprocket::runtime {
namespace {

// Round figures: 1e9 bytes/s, 1e12 operations/s, no latency.
ClusterModel round_cluster(int nodes, int devices) {
  ClusterModel cluster;
  cluster.name = "round";
  cluster.nodes = nodes;
  cluster.devices = devices;
  cluster.links[0] = {1e10, 0, 0, true, false, 0};
  cluster.links[1] = {1e9, 0, 0, true, false, 0};
  cluster.device = {1e12, 1e12, 1e12, 1e12, 1e300, 0, 1e12};
  return cluster;
}

TEST(TransferTime, IsLatencyPlusMessagesPlusBytes) {
  ClusterModel cluster = round_cluster(2, 2);
  cluster.links[1] = {1e9, 5e-6, 2e-6, true, false, 0.25};
  Flow flow;
  flow.add_sent(LinkClass::kBetweenNodes, 3e6, 2);
  flow.add_sent(LinkClass::kBetweenNodes, 1e6, 1);
  flow.add_received(LinkClass::kBetweenNodes, 1e6);
  const TransferTime time = transfer_time(cluster, flow, flow);
  EXPECT_DOUBLE_EQ(time.seconds, 5e-6 + 2 * 2e-6 + 4e-3);
  EXPECT_EQ(time.overlap, 0.25);
  EXPECT_EQ(transfer_time(cluster, {}, {}).seconds, 0);
}

TEST(TransferTime, DuplexAndAdapters) {
  ClusterModel cluster = round_cluster(2, 4);
  Flow rank, node;
  rank.add_sent(LinkClass::kBetweenNodes, 1e6, 1);
  rank.add_received(LinkClass::kBetweenNodes, 2e6);
  node.add_sent(LinkClass::kBetweenNodes, 4e6, 4);
  node.add_received(LinkClass::kBetweenNodes, 8e6);
  EXPECT_DOUBLE_EQ(transfer_time(cluster, rank, node).seconds, 2e-3);
  cluster.links[1].full_duplex = false;
  EXPECT_DOUBLE_EQ(transfer_time(cluster, rank, node).seconds, 3e-3);
  cluster.links[1].shared = true;
  EXPECT_DOUBLE_EQ(transfer_time(cluster, rank, node).seconds, 12e-3);
  // Both classes of links work at the same time.
  rank.add_sent(LinkClass::kInsideNode, 1e9, 1);
  EXPECT_DOUBLE_EQ(transfer_time(cluster, rank, node).seconds, 0.1);
}

// Two ranks, 1e9 pairs each here and there, head dim 1e3 / 4: a pass of all takes 1 s forward.
AttentionWork two_ranks(OuterKind outer, double fetch, double give_back) {
  AttentionWork work;
  work.outer = outer;
  work.outer_degree = 2;
  work.head_dim = 250;
  for (int rank = 0; rank < 2; ++rank) {
    RankWork own;
    own.pairs = {0.5e9, 0.5e9};
    work.ranks.push_back(own);
  }
  work.transfers.fetch = {{fetch, 1}, {fetch, 1}};
  work.transfers.give_back = {{give_back, 1}, {give_back, 1}};
  return work;
}

TEST(AttentionCost, RingStepsAreTheLongerOfComputeAndTransfer) {
  const DeviceModel device = round_cluster(1, 1).device;
  for (const double transfer : {0.1, 0.5, 0.7}) {
    AttentionWork work = two_ranks(OuterKind::kRing, transfer, 0.2);
    work.transfers.fetch_again = work.transfers.fetch;
    const AttentionCost cost = attention_cost(device, work);
    EXPECT_NEAR(cost.forward.seconds(), std::max(0.5, transfer) + 0.5, 1e-9);
    // 2.5 times the operations; the first gradients travel during the second step, the last after
    // it.
    EXPECT_NEAR(cost.backward.seconds(), std::max(1.25, transfer) + 1.25 + 0.2, 1e-9);
    EXPECT_NEAR(cost.forward.exposed, std::max(0.0, transfer - 0.5), 1e-9);
  }
}

TEST(AttentionCost, LocalPassHidesWhatIsFetched) {
  const DeviceModel device = round_cluster(1, 1).device;
  AttentionWork work = two_ranks(OuterKind::kSelected, 0.8, 1.5);
  AttentionCost cost = attention_cost(device, work);
  EXPECT_NEAR(cost.forward.seconds(), 0.8 + 0.5, 1e-9);
  EXPECT_NEAR(cost.forward.exposed, 0.3, 1e-9);
  EXPECT_NEAR(cost.backward.seconds(), 1.25 + 1.5, 1e-9);
  EXPECT_NEAR(cost.backward.exposed, 0.25, 1e-9);
  // What is fetched again is waited for.
  work.transfers.fetch_again = {{0.8, 1}, {0.8, 1}};
  cost = attention_cost(device, work);
  EXPECT_NEAR(cost.backward.seconds(), 0.8 + 1.25 + 1.5, 1e-9);
  // So is everything in a single pass and without overlap.
  for (bool AttentionWork::*way : {&AttentionWork::single_pass, &AttentionWork::overlap}) {
    AttentionWork plain = work;
    plain.*way = !(plain.*way);
    cost = attention_cost(device, plain);
    EXPECT_NEAR(cost.forward.seconds(), 1 + 0.8, 1e-9);
    EXPECT_NEAR(cost.backward.seconds(), 0.8 + 2.5 + 1.5, 1e-9);
  }
  // A link without overlap hides nothing.
  for (auto* transfers : {&work.transfers.fetch, &work.transfers.give_back}) {
    for (TransferTime& time : *transfers) time.overlap = 0;
  }
  cost = attention_cost(device, work);
  EXPECT_NEAR(cost.forward.seconds(), 0.8 + 1.0, 1e-9);
  EXPECT_NEAR(cost.backward.seconds(), 0.8 + 2.5 + 1.5, 1e-9);
}

// Groups of 0.5 s: the second arrives during the first, the first leaves during the second.
TEST(AttentionCost, GroupsOfHeadsHideEachOthersTransfers) {
  const DeviceModel device = round_cluster(1, 1).device;
  AttentionWork work = two_ranks(OuterKind::kLocal, 0, 0);
  work.outer_degree = 1;
  work.ulysses_degree = 2;
  for (RankWork& rank : work.ranks) rank.pairs = {1e9};
  work.head_groups = 2;
  work.transfers = {};
  work.transfers.ulysses_in = work.transfers.ulysses_gradient_in = {{0.2, 1}, {0.2, 1}};
  work.transfers.ulysses_out = work.transfers.ulysses_gradient_out = {{0.7, 1}, {0.7, 1}};
  AttentionCost cost = attention_cost(device, work);
  EXPECT_NEAR(cost.forward.seconds(), 0.2 + 0.5 + 0.7 + 0.7, 1e-9);
  EXPECT_NEAR(cost.backward.seconds(), 0.7 + 1.25 + 1.25 + 0.2, 1e-9);
  EXPECT_NEAR(cost.forward.transfer, 2 * 0.9, 1e-9);
  work.overlap = false;
  cost = attention_cost(device, work);
  EXPECT_NEAR(cost.forward.seconds(), 1 + 2 * 0.9, 1e-9);
  EXPECT_NEAR(cost.backward.seconds(), 2.5 + 2 * 0.9, 1e-9);
}

TEST(AttentionCost, TheSlowestRankSetsEveryPart) {
  const DeviceModel device = round_cluster(1, 1).device;
  AttentionWork work = two_ranks(OuterKind::kAllGather, 0, 0);
  work.ranks[1].pairs = {1e9, 1e9};
  EXPECT_NEAR(attention_cost(device, work).forward.seconds(), 2, 1e-9);
}

TEST(AttentionCost, CopiesAndCallsCount) {
  DeviceModel device = round_cluster(1, 1).device;
  device.copy = 1e9;
  device.call = 1e-3;
  AttentionWork work;
  work.head_dim = 250;
  work.ranks.resize(1);
  work.ranks[0].pairs = {1e9};
  work.ranks[0].shard_elements = work.ranks[0].key_elements = 1e6;
  const PhaseCost forward = attention_cost(device, work).forward;
  EXPECT_NEAR(forward.kernels, 1 + 1e-3, 1e-12);
  EXPECT_NEAR(forward.copies, 4e6 / 2e9 + 1e-3, 1e-12);  // the output is zeroed
}

config::LoadedJob load(const std::string& text) {
  return config::parse_job(text, "job.txtpb", {}, {});
}

constexpr char kDense[] =
    "model { dim: 256 heads: 4 layers: 2 ffn_dim: 512 } training { global_batch: 8 }";
const config::LatentShape kShape{16, 8, 32, 32};  // 8 x 16 x 16 tokens

std::vector<Candidate> candidates_of(const config::LoadedJob& loaded, const ClusterModel& cluster,
                                     SelectionSource source = {}) {
  LayerPlanner planner(loaded.job, kShape, 0, std::move(source), cluster);
  return make_candidates(loaded, kShape, planner);
}

const Candidate& find(const std::vector<Candidate>& candidates, int data, int outer, int ulysses,
                      config::Parallel::Strategy strategy, bool keep = true) {
  config::Parallel wanted;
  wanted.set_data(data);
  wanted.set_outer(outer);
  wanted.set_ulysses(ulysses);
  wanted.set_strategy(strategy);
  wanted.set_remote_kv(keep ? config::Parallel::KEEP : config::Parallel::FETCH_AGAIN);
  for (const Candidate& candidate : candidates) {
    if (candidate.same_as(wanted)) return candidate;
  }
  throw std::runtime_error("not listed");
}

TEST(Candidates, AllFactorisationsAndStrategies) {
  const auto candidates = candidates_of(load(kDense), round_cluster(1, 8));
  // 3 ways with outer 1 .. : 8 = data x outer x ulysses has 10 ordered factorisations, 4 of them
  // without an outer axis; the other 6 have ring, and all_gather and selected twice.
  EXPECT_EQ(candidates.size(), 4u + 6u * 5u);
  for (const Candidate& candidate : candidates) {
    EXPECT_EQ(candidate.legal(), candidate.parallel.ulysses() <= 4) << name_of(candidate);
  }
  const Candidate& illegal = find(candidates, 1, 1, 8, config::Parallel::SELECTED);
  ASSERT_EQ(illegal.reasons.size(), 1u);
  EXPECT_THAT(illegal.reasons[0], ::testing::StartsWith("parallel.ulysses: 8 does not divide"));
}

// Dense attention, even shards: the closed forms of docs/sequence_parallel.md.
TEST(Candidates, BytesAndTimesAreTheClosedForms) {
  const ClusterModel cluster = round_cluster(4, 1);
  const auto candidates = candidates_of(load(kDense), cluster);
  const double u = 8 * 16 * 16 / 4 * 256 * 4;
  const double pairs = 2048.0 * 2048 / 4 * 4;  // of a rank, over 4 heads
  const double pass = 4 * 64 * pairs / 1e12;
  const Candidate& ring = find(candidates, 1, 4, 1, config::Parallel::RING);
  EXPECT_EQ(ring.forward_bytes, 6 * u);
  EXPECT_EQ(ring.backward_bytes, 6 * u + 8 * u);
  EXPECT_EQ(ring.forward_messages, 3);
  EXPECT_EQ(ring.backward_messages, 7);
  const double hop = 2 * u / 1e9;  // overlap 0
  EXPECT_NEAR(ring.attention.forward.seconds(), pass + 3 * hop, 1e-9);
  EXPECT_NEAR(ring.attention.backward.seconds(), 2.5 * pass + 3 * hop + 4 * hop, 1e-9);
  const Candidate& gather = find(candidates, 1, 4, 1, config::Parallel::ALL_GATHER);
  EXPECT_NEAR(gather.attention.forward.seconds(), pass + 3 * hop, 1e-9);
  EXPECT_NEAR(gather.attention.backward.seconds(), 2.5 * pass + 3 * hop, 1e-9);
  const Candidate& ulysses = find(candidates, 1, 1, 4, config::Parallel::SELECTED);
  EXPECT_EQ(ulysses.forward_bytes, 3 * u);
  EXPECT_NEAR(ulysses.attention.forward.exposed, 3 * u / 1e9, 1e-12);
}

// Two groups of a head each; a link that hides nothing has all groups' bytes to carry.
TEST(Candidates, UlyssesSendsAllGroupsOfHeads) {
  const auto candidates = candidates_of(load(kDense), round_cluster(2, 1));
  const double u = 8 * 16 * 16 / 2 * 256 * 4;
  const Candidate& ulysses = find(candidates, 1, 1, 2, config::Parallel::SELECTED);
  EXPECT_EQ(ulysses.forward_bytes, 2 * u);
  EXPECT_EQ(ulysses.forward_messages, 4);
  EXPECT_NEAR(ulysses.attention.forward.exposed, 2 * u / 1e9, 1e-12);
  EXPECT_NEAR(ulysses.attention.backward.exposed, 2 * u / 1e9, 1e-12);
}

TEST(Candidates, StepCountsRecomputationAndTheGradientSum) {
  const ClusterModel cluster = round_cluster(4, 1);
  const config::LoadedJob kept = load(kDense);
  const config::LoadedJob again =
      config::parse_job(kDense, "job.txtpb", {"training.activation_checkpointing: BLOCK"}, {});
  const auto a = candidates_of(kept, cluster), b = candidates_of(again, cluster);
  const Candidate &x = find(a, 1, 4, 1, config::Parallel::RING),
                  &y = find(b, 1, 4, 1, config::Parallel::RING);
  // 8 micro-batches of 2 layers; both sums' halves are a quarter to each of three others.
  const int64_t sum = 2 * 3 * parameter_count(kept.job);
  EXPECT_EQ(x.step_bytes, 16 * (x.forward_bytes + x.backward_bytes) + sum);
  EXPECT_EQ(y.step_bytes, 16 * (2 * x.forward_bytes + x.backward_bytes) + sum);
  EXPECT_NEAR(x.step.gradient_sum, static_cast<double>(sum) / 1e9, 1e-9);
  EXPECT_GT(y.step.seconds, x.step.seconds);
  EXPECT_LT(y.memory.total(), x.memory.total());
}

TEST(Candidates, LessDataNeverTakesLonger) {
  const ClusterModel cluster = round_cluster(4, 2);
  const config::LoadedJob loaded = load(kDense);
  const auto seconds = [&](const ClusterModel& on, double density, double coverage) {
    SelectionSource source;
    source.density = density;
    source.coverage = coverage;
    const auto candidates = candidates_of(loaded, on, source);
    return find(candidates, 1, 4, 2, config::Parallel::SELECTED).attention.forward.seconds();
  };
  double last = 0;
  for (const double coverage : {0.0, 0.1, 0.25, 0.6, 1.0}) {
    const double now = seconds(cluster, 0.1, coverage);
    EXPECT_GT(now, last);
    last = now;
  }
  EXPECT_LT(seconds(cluster, 0.05, 0.5), seconds(cluster, 0.1, 0.5));
  ClusterModel better = cluster;
  better.links[1].bytes_per_second *= 2;
  EXPECT_LT(seconds(better, 0.1, 0.5), seconds(cluster, 0.1, 0.5));
  better = cluster;
  better.links[1].overlap = 1;
  EXPECT_LT(seconds(better, 0.1, 0.5), seconds(cluster, 0.1, 0.5));
  better = cluster;
  better.links[1].shared = true;  // worse
  EXPECT_GT(seconds(better, 0.1, 0.5), seconds(cluster, 0.1, 0.5));
}

TEST(Candidates, WhatDoesNotFitIsNeverRecommended) {
  ClusterModel cluster = round_cluster(4, 1);
  const config::LoadedJob loaded = load(kDense);
  auto candidates = candidates_of(loaded, cluster);
  const int64_t least =
      std::min_element(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) {
        return a.memory.total() < b.memory.total();
      })->memory.total();
  cluster.device.memory = static_cast<double>(least);
  candidates = candidates_of(loaded, cluster);
  ASSERT_NE(best_candidate(candidates), nullptr);
  EXPECT_EQ(best_candidate(candidates)->memory.total(), least);
  cluster.device.memory = static_cast<double>(least - 1);
  candidates = candidates_of(loaded, cluster);
  EXPECT_EQ(best_candidate(candidates), nullptr);
}

TEST(ClusterModel, RatesOfThePrecisionOrAnError) {
  const config::Cluster cluster = config::parse_cluster(
      "name: 'x' nodes: 1 devices: 1 memory_gib: 1 copy_gb_s: 1 call_us: 1\n"
      "rates { precision: FP32 attention_forward_tflops: 1 attention_backward_tflops: 2 "
      "attention_forward_row_ns: 0 attention_backward_row_ns: 0\n"
      "  linear_tflops: 3 selection_tflops: 4 }",
      "c.txtpb");
  EXPECT_EQ(cluster_model(cluster, config::Compute::FP32).device.linear, 3e12);
  try {
    cluster_model(cluster, config::Compute::BF16);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(),
                 "cluster x: rates: none for precision BF16, which the job computes in; found "
                 "FP32");
  }
}

parallel::TokenLayout layout_of(const parallel::Grid& grid, parallel::BlockOrder order,
                                int domains = 1) {
  parallel::TokenLayoutSpec spec;
  spec.grid = grid;
  spec.order = order;
  spec.domains = domains;
  return parallel::make_token_layout(spec);
}

TEST(SelectionCounts, FiguresAreWhatWasGiven) {
  const parallel::TokenLayout layout = layout_of({8, 16, 16}, parallel::BlockOrder::kKd);
  const SelectionShards shards = selection_shards(layout, 4, {});
  const SelectionCounts dense = count_dense(3, shards);
  EXPECT_EQ(dense.coverage(shards), 1);
  EXPECT_DOUBLE_EQ(dense.density(shards), 1);
  EXPECT_EQ(dense.rows(0, 1, 0, 3), 3 * 512);
  const SelectionCounts some = count_figures(0.1, 0.25, 3, shards);
  EXPECT_EQ(some.coverage(shards), 0.25);
  EXPECT_NEAR(some.density(shards), 0.1, 1e-12);
  // 512 own rows and 3 x 128 imported ones share the selected pairs evenly.
  EXPECT_NEAR(some.pairs(0, 0, 0, 1) / some.pairs(0, 1, 0, 1), 512.0 / 128, 1e-9);
  const SelectionCounts local = count_figures(0.1, 0, 3, shards);
  EXPECT_EQ(local.pairs(0, 1, 0, 3), 0);
}

TEST(SyntheticSelection, HasTheDensityAndStaysWithinTheBudget) {
  const parallel::TokenLayout layout = layout_of({8, 16, 24}, parallel::BlockOrder::kKd, 4);
  const auto free = synthetic_selection(layout, 2, Decimal::parse("0.125"), std::nullopt);
  EXPECT_DOUBLE_EQ(free.density(), 0.125);
  EXPECT_EQ(free, synthetic_selection(layout, 2, Decimal::parse("0.125"), std::nullopt));
  const kernels::DomainBudget budget{
      kernels::BudgetForm::kFlat, layout.domain_blocks, {Decimal::parse("0.2")}, 0};
  const auto bound = synthetic_selection(layout, 2, Decimal::parse("0.125"), budget);
  const SelectionShards shards = selection_shards(layout, 4, {});
  EXPECT_LE(count_selection(bound, shards).coverage(shards), 0.2);
  EXPECT_GT(count_selection(bound, shards).coverage(shards), 0.15);
  EXPECT_GT(count_selection(free, shards).coverage(shards), 0.3);
}

// With as many domains as ranks the shards of the video stay as they are.
TEST(SyntheticSelection, MovesTheSameKeysBehindAText) {
  const parallel::TokenLayout video = layout_of({8, 16, 24}, parallel::BlockOrder::kKd, 4);
  parallel::TokenLayoutSpec spec = video.spec;
  spec.prefix = {67};
  const parallel::TokenLayout layout = parallel::make_token_layout(spec);
  ASSERT_EQ(layout.prefix_blocks(), 2);
  EXPECT_EQ(without_prefix(layout).raster_index, video.raster_index);
  const auto table = synthetic_selection(video, 2, Decimal::parse("0.125"), std::nullopt);
  const auto whole = with_prefix(table, layout.prefix_blocks());
  EXPECT_EQ(whole.row(0, 1, 1).size(), static_cast<size_t>(layout.blocks()));
  EXPECT_EQ(whole.row(0, 1, 2).size(), table.row(0, 1, 0).size() + 2);
  EXPECT_EQ(whole.row(0, 1, 2)[1], 1);
  EXPECT_EQ(whole.row(0, 1, 2).back(), table.row(0, 1, 0).back() + 2);
  const SelectionShards alone = selection_shards(video, 4, {}),
                        shards = selection_shards(layout, 4, {});
  const SelectionCounts moved = count_selection(table, alone),
                        found = count_selection(whole, shards);
  for (int rank = 0; rank < 4; ++rank) {
    for (int owner = 0; owner < 4; ++owner) {
      if (owner == rank) continue;
      EXPECT_EQ(found.rows(rank, owner, 0, 2), moved.rows(rank, owner, 0, 2));
      EXPECT_EQ(found.pairs(rank, owner, 0, 2), moved.pairs(rank, owner, 0, 2));
    }
  }
  // Every token of the text with all, and all of the video with the text.
  const double text = 67, all = static_cast<double>(layout.tokens());
  const double in_video =
      count_selection(table, alone).density(alone) * (all - text) * (all - text);
  EXPECT_NEAR(found.density(shards) * all * all, in_video + text * all + (all - text) * text, 1e-6);
}

TEST(SyntheticSelection, NarrowIsMoreLocal) {
  const parallel::TokenLayout layout = layout_of({8, 16, 24}, parallel::BlockOrder::kKd);
  const SelectionShards shards = selection_shards(layout, 4, {});
  double last = 0;
  for (const double width : {0.5, 1.5, 4.0, 20.0}) {
    const auto table =
        synthetic_selection(layout, 4, Decimal::parse("0.1"), std::nullopt, {width, 0});
    const double coverage = count_selection(table, shards).coverage(shards);
    EXPECT_GT(coverage, last);
    last = coverage;
  }
}

// The layouts' table counts rows as the exchange does where shards are whole blocks.
TEST(CoverageByOrder, EqualsTheExchangeForTheOwnOrder) {
  const parallel::TokenLayout layout = layout_of({9, 14, 18}, parallel::BlockOrder::kKd);
  const auto table = synthetic_selection(layout, 3, Decimal::parse("0.1"), std::nullopt);
  for (const OrderCoverage& order : coverage_by_order(layout, table, {2, 3, 8}, {0, 0.2, 1})) {
    EXPECT_EQ(order.cuts_blocks, order.order == parallel::BlockOrder::kHilbert);
    EXPECT_DOUBLE_EQ(order.kept[2], 1);
    EXPECT_LT(order.kept[0], order.kept[1]);
    EXPECT_LE(order.kept[1], 1);
    if (order.order != parallel::BlockOrder::kKd) continue;
    const SelectionShards shards = selection_shards(layout, order.ranks, {});
    EXPECT_DOUBLE_EQ(order.coverage, count_selection(table, shards).coverage(shards));
  }
}

TEST(CoverageByOrder, DenseNeedsEverythingAndSelfNothing) {
  const parallel::TokenLayout layout = layout_of({8, 16, 16}, parallel::BlockOrder::kRaster);
  const int blocks = layout.blocks();
  for (const OrderCoverage& order :
       coverage_by_order(layout, kernels::make_dense_table(1, 2, blocks, blocks), {2, 4}, {0.5})) {
    EXPECT_DOUBLE_EQ(order.coverage, 1);
    if (order.cuts_blocks) continue;
    EXPECT_NEAR(order.kept[0], 1.0 / order.ranks + 0.5 * (1 - 1.0 / order.ranks), 1e-12);
  }
  kernels::SegmentTable self{1, 1, blocks, blocks, {0}, {}};
  for (int block = 0; block < blocks; ++block) {
    self.kv_block.push_back(block);
    self.row_offsets.push_back(block + 1);
  }
  for (const OrderCoverage& order : coverage_by_order(layout, self, {2}, {0})) {
    if (order.cuts_blocks) continue;
    EXPECT_EQ(order.coverage, 0);
    EXPECT_EQ(order.kept[0], 1);
  }
}

}  // namespace
}  // namespace sprocket::runtime

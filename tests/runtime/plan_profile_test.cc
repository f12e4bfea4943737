// The planner and a profile: figures that are taken over, and prediction beside measurement.
#include <algorithm>
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "configs/cluster.h"
#include "runtime/plan/candidates.h"
#include "runtime/plan/flops.h"
#include "runtime/plan/step_cost.h"
#include "runtime/planner/measured_cluster.h"
#include "runtime/planner/prediction.h"

namespace sprocket::runtime {
namespace {

using profile::KernelRow;
using profile::OperationRow;
using profile::Report;
using ::testing::HasSubstr;

// Kernels fast enough for the network to matter.
constexpr char kCluster[] =
    "name: 'two small nodes' nodes: 2 devices: 2 memory_gib: 8 copy_gb_s: 8 call_us: 0\n"
    "link { class: INSIDE_NODE bandwidth_gb_s: 6 latency_us: 4 message_us: 0 duplex: FULL\n"
    "  adapter: PER_DEVICE overlap: 0 }\n"
    "link { class: BETWEEN_NODES bandwidth_gb_s: 0.5 latency_us: 100 message_us: 0 duplex: FULL\n"
    "  adapter: SHARED overlap: 0.5 }\n"
    "rates { precision: FP32 attention_forward_tflops: 0.2 attention_backward_tflops: 0.25\n"
    "  attention_forward_row_ns: 0 attention_backward_row_ns: 0\n"
    "  linear_tflops: 0.4 selection_tflops: 0.05 peak_tflops: 0.5 }\n";
constexpr char kJob[] =
    "model { dim: 256 heads: 4 layers: 4 ffn_dim: 1024 }\n"
    "attention { method: VSA vsa { sparsity { start: 0.9 } } }\n"
    "parallel { outer: 4 strategy: RING remote_kv: KEEP }\n"
    "training { global_batch: 2 micro_batch: 1 activation_checkpointing: BLOCK }\n";
const config::LatentShape kShape{16, 8, 32, 48};
constexpr double kDensity = 0.125, kCoverage = 0.5;

config::LoadedJob job_of(const std::string& more = "") {
  config::LoadOptions options;
  options.world = 4;
  return config::parse_job(std::string(kJob) + more, "job.txtpb", {}, options);
}

config::Cluster cluster_of(const std::string& text = kCluster) {
  return config::parse_cluster(text, "c.txtpb");
}

struct Model {
  config::LoadedJob loaded;
  LayerPlan plan;
  StepCost step;
  BlockRuns runs;
};

Model model_of(const config::Cluster& cluster, const config::LoadedJob& loaded) {
  SelectionSource source;
  source.density = kDensity;
  source.coverage = kCoverage;
  LayerPlanner planner(loaded.job, kShape, 0, source, cluster_model(cluster, 0));
  Model model{loaded, planner.plan(loaded.job), {}, block_runs(loaded.job)};
  int64_t tokens = 0;
  for (int rank = 0; rank < 4; ++rank) {
    tokens = std::max(tokens, model.plan.shards.tokens_of(rank));
  }
  model.step = step_cost(loaded.job, planner.cluster(), model.plan.cost, tokens);
  return model;
}

double longest(const Transfers& transfers) {
  double seconds = 0;
  for (const TransferTime& each : transfers) seconds = std::max(seconds, each.seconds);
  return seconds;
}

// What a run would have measured that the model describes wholly. Every forward is recomputed.
Report measured_of(const config::Cluster& cluster, const Model& model) {
  const double ms = 1e3;
  const auto& [loaded, plan, step, runs] = model;
  const auto forwards = static_cast<double>(runs.forwards) / 2,
             backwards = static_cast<double>(runs.backwards);
  const config::KernelRates& rates = cluster.rates(0);
  Report r;
  r.job.kind = "train";
  r.machine.hosts = {{"alpha", 2}, {"beta", 2}};
  const config::Parallel& parallel = loaded.job.parallel();
  r.mesh = {parallel.data(), parallel.outer(), parallel.ulysses(), "RING"};
  r.step.seconds = r.step.median_seconds = step.seconds;
  r.step.each_seconds.assign(10, step.seconds);
  const auto kernel = [&](const char* name, const char* activity, const char* phase, double seconds,
                          std::optional<double> flops, std::optional<double> bytes) {
    r.kernels.push_back({name, activity, phase, 1, ms * seconds, flops, bytes});
  };
  const auto attention = [&](const char* phase, double seconds, double tflops) {
    kernel("attention.ring_step", "compute", phase, seconds, seconds * tflops * 1e12, {});
  };
  const PhaseCost &f = plan.cost.forward, &b = plan.cost.backward;
  for (const char* phase : {"forward", "recompute"}) {
    attention(phase, forwards * f.kernels, rates.attention_forward_tflops());
    kernel("ulysses.pack", "copy", phase, forwards * f.copies, {},
           forwards * f.copies * 2e9 * cluster.copy_gb_s());
  }
  attention("backward", backwards * b.kernels, rates.attention_backward_tflops());
  kernel("ulysses.pack", "copy", "backward", backwards * b.copies, {},
         backwards * b.copies * 2e9 * cluster.copy_gb_s());
  const double others = 2 * forwards * (step.layer_forward - f.seconds()) +
                        backwards * (step.layer_backward - b.seconds());
  kernel("linear", "compute", "forward", others, others * 1e12 * rates.linear_tflops(), {});
  kernel("optimizer", "compute", "optimizer", step.optimizer, {}, {});
  profile::LayerRow layer;
  layer.density = profile::Range{kDensity, kDensity, kDensity};
  layer.coverage = profile::Range{kCoverage, kCoverage, kCoverage};
  const double layers = loaded.job.model().layers();
  layer.compute_ms = ms * (2 * forwards * f.kernels + backwards * b.kernels + others) / layers;
  layer.exposed_ms = ms * (2 * forwards * f.exposed + backwards * b.exposed) / layers;
  r.layers.assign(loaded.job.model().layers(), layer);

  const auto& link = cluster.link(1);
  const auto operation = [&](const char* group, const char* op, const char* phase, double calls,
                             double seconds, double bytes) {
    OperationRow row;
    row.group = group;
    row.op = op;
    row.phase = phase;
    row.calls = calls;
    row.payload_bytes = row.wire_bytes = row.between_nodes_bytes = calls * bytes;
    row.transfer_ms = ms * calls * seconds;
    row.matched = 1;
    row.busbw_gb_s = bytes / seconds / 1e9;
    r.operations.push_back(row);
  };
  const AttentionTransfers& t = plan.work.transfers;
  for (const char* phase : {"forward", "recompute"}) {
    operation("sp.outer", "exchange", phase, 3 * forwards, longest(t.fetch), 1e6);
    operation("sp.outer", "all_gather", phase, forwards, longest(t.summaries), 1e3);
  }
  operation("sp.outer", "exchange", "backward", 7 * backwards,
            (3 * longest(t.fetch_again) + 4 * longest(t.give_back)) / 7, 1e6);
  operation("sp.outer", "reduce_scatter", "backward", backwards, longest(t.summary_gradients), 2e3);
  operation("world", "all_reduce", "optimizer", 1, step.gradient_sum, 1e7);
  operation("world", "all_reduce", "optimizer", 1, 1e-6 * link.latency_us(), 16);
  return r;
}

const profile::PredictionRow& row_of(const profile::Prediction& prediction,
                                     const std::string& what) {
  const auto found =
      std::find_if(prediction.rows.begin(), prediction.rows.end(),
                   [&](const profile::PredictionRow& row) { return row.what == what; });
  if (found == prediction.rows.end()) {
    ADD_FAILURE() << "no row " << what;
    return prediction.rows.front();
  }
  return *found;
}

TEST(Prediction, OfWhatTheModelDescribesHasNoError) {
  const config::Cluster cluster = cluster_of();
  const config::LoadedJob loaded = job_of();
  const Report report = measured_of(cluster, model_of(cluster, loaded));
  const profile::Prediction prediction = predict(loaded, kShape, cluster, report, {});
  EXPECT_EQ(prediction.cluster, "two small nodes");
  std::vector<std::string> names;
  for (const profile::PredictionRow& row : prediction.rows) {
    names.push_back(row.what);
    const double allowed = row.what == "sum of the gradients" ? 0.02 : 1e-9;  // 16 bytes more
    EXPECT_NEAR(row.error, 0, allowed)
        << row.what << ' ' << row.predicted_ms << ' ' << row.measured_ms;
    EXPECT_DOUBLE_EQ(row.error, row.predicted_ms / row.measured_ms - 1);
  }
  EXPECT_THAT(names,
              ::testing::ElementsAre(
                  "attention forward: kernels of a layer", "attention backward: kernels of a layer",
                  "attention forward: copies of a layer", "attention backward: copies of a layer",
                  "attention: exposed communication of a layer", "other compute of a layer",
                  "sp.outer exchange forward: a call", "sp.outer exchange backward: a call",
                  "sp.outer gather forward: a call", "sp.outer gather backward: a call",
                  "sum of the gradients", "optimizer", "step"));
}

TEST(Prediction, AnErrorIsThatOfItsRow) {
  const config::Cluster cluster = cluster_of();
  const config::LoadedJob loaded = job_of();
  Report report = measured_of(cluster, model_of(cluster, loaded));
  for (KernelRow& kernel : report.kernels) {
    if (kernel.name == "attention.ring_step" && kernel.phase == "backward") kernel.ms *= 2;
  }
  for (OperationRow& row : report.operations) {
    if (row.op == "exchange" && row.phase != "backward") row.transfer_ms *= 4;
  }
  const profile::Prediction prediction = predict(loaded, kShape, cluster, report, {});
  EXPECT_NEAR(row_of(prediction, "attention backward: kernels of a layer").error, -0.5, 1e-9);
  EXPECT_NEAR(row_of(prediction, "attention forward: kernels of a layer").error, 0, 1e-9);
  EXPECT_NEAR(row_of(prediction, "sp.outer exchange forward: a call").error, -0.75, 1e-9);
  EXPECT_NEAR(row_of(prediction, "sp.outer exchange backward: a call").error, 0, 1e-9);
}

TEST(Prediction, WhatWasNotMeasuredHasNoRow) {
  const config::Cluster cluster = cluster_of();
  const config::LoadedJob loaded = job_of();
  Report report = measured_of(cluster, model_of(cluster, loaded));
  report.kernels.clear();
  report.operations.clear();
  report.layers.clear();
  const profile::Prediction prediction = predict(loaded, kShape, cluster, report, {});
  ASSERT_EQ(prediction.rows.size(), 1u);
  EXPECT_EQ(prediction.rows[0].what, "step");
}

// Four ranks in a ring over two slow nodes: Ulysses or another strategy is better, and says so.
TEST(Prediction, AdvisesWhatSavesMoreThanTheModelErrs) {
  const config::Cluster cluster = cluster_of();
  const config::LoadedJob loaded = job_of();
  const Report report = measured_of(cluster, model_of(cluster, loaded));
  const PredictionFiles files{"job.txtpb", "c.txtpb", "out/profile.json"};
  const profile::Prediction prediction = predict(loaded, kShape, cluster, report, files);
  ASSERT_TRUE(prediction.advice.has_value());
  EXPECT_THAT(prediction.advice->change, HasSubstr("data "));
  EXPECT_EQ(prediction.advice->command,
            "sprocket plan --config job.txtpb --cluster c.txtpb --from out/profile.json");
  EXPECT_GT(prediction.advice->saves_ms, 0);
  EXPECT_LT(prediction.advice->saves_ms, 1e3 * report.step.median_seconds);

  // A step that took three times what the model explains: it cannot promise anything then.
  Report strange = report;
  strange.step.median_seconds *= 3;
  EXPECT_FALSE(predict(loaded, kShape, cluster, strange, files).advice.has_value());
}

TEST(Prediction, HasNoAdviceWhereTheJobIsBest) {
  const config::Cluster cluster = cluster_of();
  config::LoadedJob loaded = job_of();
  SelectionSource source;
  source.density = kDensity;
  source.coverage = kCoverage;
  LayerPlanner planner(loaded.job, kShape, 0, source, cluster_model(cluster, 0));
  const std::vector<Candidate> candidates = make_candidates(loaded, kShape, planner);
  *loaded.job.mutable_parallel() = best_candidate(candidates)->parallel;
  Report report = measured_of(cluster, model_of(cluster, loaded));
  if (best_candidate(candidates)->parallel.remote_kv() == config::Parallel::FETCH_AGAIN) {
    report.remote_kv = profile::RemoteKvRow{"FETCH_AGAIN", {}, {}, {}, {}};
  }
  EXPECT_FALSE(predict(loaded, kShape, cluster, report, {}).advice.has_value());
}

TEST(Prediction, OfOtherJobsIsEmpty) {
  const config::Cluster cluster = cluster_of();
  const config::LoadedJob loaded = job_of();
  Report report = measured_of(cluster, model_of(cluster, loaded));
  report.job.kind = "sample";
  const profile::Prediction prediction = predict(loaded, kShape, cluster, report, {});
  EXPECT_TRUE(prediction.rows.empty());
  EXPECT_FALSE(prediction.advice.has_value());
}

TEST(Prediction, RefusesClustersThatLackWhatTheRunNeeds) {
  const config::LoadedJob loaded = job_of();
  Report report = measured_of(cluster_of(), model_of(cluster_of(), loaded));
  std::string text = kCluster;
  text.replace(text.find("nodes: 2"), 8, "nodes: 1");
  text.erase(text.find("link { class: BETWEEN"), text.find("rates {") - text.find("link { class: "
                                                                                  "BETWEEN"));
  const auto message = [&](const config::Cluster& cluster) {
    try {
      predict(loaded, kShape, cluster, report, {});
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(message(cluster_of(text)),
              HasSubstr("no link of class BETWEEN_NODES, which 2 hosts with 2 ranks each need"));
  report.machine.hosts = {{"alpha", 3}, {"beta", 1}};
  EXPECT_THAT(message(cluster_of()), HasSubstr("found 3 on alpha and 1 on beta"));
}

double figure(const MeasuredCluster& measured, const std::string& name) {
  for (const MeasuredFigure& each : measured.figures) {
    if (each.name == name) return each.measured.value_or(std::nan(""));
  }
  ADD_FAILURE() << "no figure " << name;
  return 0;
}

TEST(MeasuredCluster, FindsTheRatesThatTheRunHad) {
  const config::LoadedJob loaded = job_of();
  const config::Cluster real = cluster_of();
  const Report report = measured_of(real, model_of(real, loaded));
  // A description that is wrong in everything that can be measured.
  config::Cluster wrong = real;
  wrong.set_copy_gb_s(1);
  wrong.mutable_rates(0)->set_attention_forward_tflops(9);
  wrong.mutable_rates(0)->set_attention_forward_row_ns(9);
  wrong.mutable_rates(0)->set_attention_backward_tflops(9);
  wrong.mutable_rates(0)->set_linear_tflops(9);
  const MeasuredCluster found = measured_cluster(wrong, 0, report);
  const config::KernelRates& rates = found.cluster.rates(0);
  EXPECT_NEAR(rates.attention_forward_tflops(), 0.2, 1e-9);
  EXPECT_EQ(rates.attention_forward_row_ns(), 0);
  EXPECT_NEAR(rates.attention_backward_tflops(), 0.25, 1e-9);
  EXPECT_NEAR(rates.linear_tflops(), 0.4, 1e-9);
  EXPECT_NEAR(found.cluster.copy_gb_s(), 8, 1e-9);
  // No kernel counted the selection's operations.
  EXPECT_EQ(rates.selection_tflops(), 0.05);
  EXPECT_TRUE(std::isnan(figure(found, "selection_tflops")));
  const std::string text = figures_text(found, "p.json");
  EXPECT_THAT(text, HasSubstr("Figures measured in p.json"));
  EXPECT_THAT(text, HasSubstr("attention.ring_step (cluster: 9)"));
  EXPECT_THAT(text, HasSubstr("the cluster's: no kernel says what it did"));
  // Nothing of it is invalid as a description.
  EXPECT_NO_THROW(config::parse_cluster(config::to_text(found.cluster), "measured"));
}

TEST(MeasuredCluster, FindsTheLinks) {
  Report report;
  report.machine.hosts = {{"alpha", 2}, {"beta", 2}};
  const auto operation = [&](double bytes, double seconds, double between) {
    OperationRow row;
    row.group = "sp.outer";
    row.op = "exchange";
    row.phase = "forward";
    row.calls = 4;
    row.payload_bytes = 4 * bytes;
    row.between_nodes_bytes = between * 4 * bytes;
    row.transfer_ms = 4e3 * seconds;
    row.matched = 1;
    row.busbw_gb_s = bytes / seconds / 1e9;
    report.operations.push_back(row);
  };
  operation(1e6, 1e6 / 2e9 + 1e-4, 1);  // 2 GB/s after 100 us
  operation(1e6, 1e-2, 1);              // hidden behind kernels
  operation(100, 1e-4, 1);
  operation(2000, 3e-4, 1);
  operation(3e4, 1e-4, 0);  // neither short nor long
  const MeasuredCluster found = measured_cluster(cluster_of(), 0, report);
  EXPECT_NEAR(figure(found, "BETWEEN_NODES latency_us"), 100, 1e-9);
  // The adapter carries the bytes of two ranks.
  EXPECT_NEAR(figure(found, "BETWEEN_NODES bandwidth_gb_s"), 4, 1e-9);
  EXPECT_NEAR(found.cluster.link(1).bandwidth_gb_s(), 4, 1e-9);
  EXPECT_TRUE(std::isnan(figure(found, "INSIDE_NODE bandwidth_gb_s")));
  EXPECT_EQ(found.cluster.link(0).bandwidth_gb_s(), 6);
  EXPECT_EQ(found.cluster.link(0).latency_us(), 4);
}

TEST(ClusterFigures, LinksAndPeak) {
  const config::LoadedJob loaded = job_of();
  const config::Cluster cluster = cluster_of();
  Report report = measured_of(cluster, model_of(cluster, loaded));
  report.flops = profile::StepWork{2e12 * report.step.seconds, 1e12 * report.step.seconds};
  report.operations[1].between_nodes_bytes = 0;
  add_cluster_figures(cluster, 0, report);
  EXPECT_EQ(report.operations[0].link_gb_s, 0.25);  // half of the adapter
  EXPECT_EQ(report.operations[0].link_share, *report.operations[0].busbw_gb_s / 0.25);
  EXPECT_EQ(report.operations[1].link_gb_s, 6);
  // Four ranks of 0.5 TFLOP/s.
  EXPECT_DOUBLE_EQ(*report.flops->peak_per_second, 2e12);
  EXPECT_DOUBLE_EQ(*report.flops->mfu, 1);
  EXPECT_DOUBLE_EQ(*report.flops->hfu, 0.5);
  config::Cluster no_peak = cluster;
  no_peak.mutable_rates(0)->clear_peak_tflops();
  Report without = report;
  without.flops = profile::StepWork{1, 1};
  add_cluster_figures(no_peak, 0, without);
  EXPECT_FALSE(without.flops->mfu.has_value());
}

}  // namespace
}  // namespace sprocket::runtime

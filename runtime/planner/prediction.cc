#include "runtime/planner/prediction.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/error.h"
#include "runtime/plan/candidates.h"
#include "runtime/plan/cluster_model.h"
#include "runtime/plan/layer_planner.h"
#include "runtime/plan/step_cost.h"
#include "runtime/planner/measured_cluster.h"

namespace sprocket::runtime {
namespace {

using profile::KernelRow;
using profile::OperationRow;
using profile::Report;

constexpr double kMilli = 1e-3;
constexpr int kMostRanksAdvised = 256;

int ranks_of_a_host(const Report& report) {
  const auto& hosts = report.machine.hosts;
  if (hosts.empty()) return report.mesh.world();
  for (const profile::Host& host : hosts) {
    if (host.ranks != hosts.front().ranks) {
      throw ConfigError(
          fmt::format("the planner's nodes have equally many ranks; found {} on {} and {} on {}",
                      hosts.front().ranks, hosts.front().name, host.ranks, host.name));
    }
  }
  return hosts.front().ranks;
}

// The cluster, as large as the run.
ClusterModel model_of_run(const config::Cluster& cluster, int precision, const Report& report) {
  ClusterModel model = cluster_model(cluster, precision);
  model.devices = ranks_of_a_host(report);
  model.nodes = report.mesh.world() / model.devices;
  const auto needs = [&](LinkClass which, bool needed) {
    if (!needed || model.link(which).bytes_per_second > 0) return;
    throw ConfigError(fmt::format(
        "cluster {}: no link of class {}, which {} hosts with {} ranks each need", cluster.name(),
        config::Link::Class_Name(static_cast<config::Link::Class>(which)), model.nodes,
        model.devices));
  };
  needs(LinkClass::kInsideNode, model.devices > 1);
  needs(LinkClass::kBetweenNodes, model.nodes > 1);
  return model;
}

// The job with the mesh and the choices of the run.
config::LoadedJob job_of_run(config::LoadedJob loaded, const Report& report) {
  config::Parallel& parallel = *loaded.job.mutable_parallel();
  parallel.set_data(report.mesh.data);
  parallel.set_outer(report.mesh.outer);
  parallel.set_ulysses(report.mesh.ulysses);
  config::Parallel::RemoteKv remote_kv = config::Parallel::KEEP;
  if (report.remote_kv) config::Parallel::RemoteKv_Parse(report.remote_kv->value, &remote_kv);
  if (report.remote_kv || parallel.remote_kv() == config::Parallel::AUTO) {
    parallel.set_remote_kv(remote_kv);
  }
  return loaded;
}

SelectionSource source_of(const Report& report) {
  const MeasuredSelection measured = measured_selection(report);
  SelectionSource source;
  source.description = "as measured";
  source.density = measured.density.value_or(1);
  // Where nothing crossed the network, nothing is known but the most.
  source.coverage = measured.coverage.value_or(1);
  return source;
}

double longest(const Transfers& transfers) {
  double seconds = 0;
  for (const TransferTime& each : transfers) seconds = std::max(seconds, each.seconds);
  return seconds;
}

bool is_forward(const std::string& phase) { return phase == "forward" || phase == "recompute"; }

class Rows {
 public:
  Rows(const config::Job& job, const LayerPlan& plan, const StepCost& step, const Report& report)
      : runs_(block_runs(job)), plan_(plan), step_(step), report_(report) {}

  std::vector<profile::PredictionRow> make() {
    const PhaseCost &forward = plan_.cost.forward, &backward = plan_.cost.backward;
    add("attention forward: kernels of a layer", forward.kernels,
        kernels_ms(true, true) / forwards());
    add("attention backward: kernels of a layer", backward.kernels,
        kernels_ms(true, false) / backwards());
    add("attention forward: copies of a layer", forward.copies,
        kernels_ms(false, true) / forwards());
    add("attention backward: copies of a layer", backward.copies,
        kernels_ms(false, false) / backwards());
    // A layer's times are of a step: of all its forwards and backwards.
    const double exposed = forwards() * forward.exposed + backwards() * backward.exposed;
    add("attention: exposed communication of a layer", exposed / backwards(),
        layers_ms(&profile::LayerRow::exposed_ms) / backwards());
    const double others = forwards() * (step_.layer_forward - forward.seconds()) +
                          backwards() * (step_.layer_backward - backward.seconds());
    add("other compute of a layer", others / backwards(),
        (layers_ms(&profile::LayerRow::compute_ms) - attention_compute_ms()) / backwards());
    add_transfers();
    add("sum of the gradients", step_.gradient_sum, gradient_sum_ms());
    add("optimizer", step_.optimizer, kind_ms(KernelKind::kOptimizer));
    add("step", step_.seconds, report_.step.median_seconds / kMilli);
    return std::move(rows_);
  }

 private:
  double forwards() const { return static_cast<double>(runs_.forwards); }
  double backwards() const { return static_cast<double>(runs_.backwards); }

  void add(const std::string& what, double seconds, double measured_ms) {
    const double predicted_ms = seconds / kMilli;
    if (!(measured_ms > 0) || !std::isfinite(predicted_ms)) return;
    rows_.push_back({what, predicted_ms, measured_ms, predicted_ms / measured_ms - 1});
  }

  // Of attention in a step: its kernels (with the selection), or its copies.
  double kernels_ms(bool kernels, bool forward) const {
    double ms = 0;
    for (const KernelRow& kernel : report_.kernels) {
      const KernelKind kind = kind_of(kernel);
      const bool wanted = kernels ? kind == KernelKind::kAttention || kind == KernelKind::kSelection
                                  : kind == KernelKind::kAttentionCopies;
      const bool phase = forward ? is_forward(kernel.phase) : kernel.phase == "backward";
      if (wanted && phase) ms += kernel.ms;
    }
    return ms;
  }

  // What the layers' compute has of attention.
  double attention_compute_ms() const {
    double ms = 0;
    for (const KernelRow& kernel : report_.kernels) {
      const KernelKind kind = kind_of(kernel);
      const bool attention = kind == KernelKind::kAttention || kind == KernelKind::kSelection ||
                             kind == KernelKind::kAttentionCopies;
      if (attention && kernel.activity == "compute") ms += kernel.ms;
    }
    return ms;
  }

  double kind_ms(KernelKind kind) const {
    double ms = 0;
    for (const KernelRow& kernel : report_.kernels) {
      if (kind_of(kernel) == kind) ms += kernel.ms;
    }
    return ms;
  }

  double layers_ms(double profile::LayerRow::*member) const {
    double ms = 0;
    for (const profile::LayerRow& layer : report_.layers) ms += layer.*member;
    return ms;
  }

  // Over all ranks; what the world does at the start and end of a window is in other phases.
  double gradient_sum_ms() const {
    double ms = 0;
    for (const OperationRow& row : report_.operations) {
      if (row.phase == "optimizer" && row.payload_bytes > kSmallSum) ms += row.transfer_ms;
    }
    return ms;
  }

  void add_transfers() {
    const AttentionTransfers& t = plan_.work.transfers;
    const double groups = plan_.work.head_groups;
    const bool ring = plan_.work.outer == OuterKind::kRing;
    const double hops = ring ? plan_.work.outer_degree - 1 : 1;
    const double returns = ring ? plan_.work.outer_degree : 1;
    add_calls("sp.ulysses", true, true,
              forwards() * groups * (longest(t.ulysses_in) + longest(t.ulysses_out)));
    add_calls(
        "sp.ulysses", true, false,
        backwards() * groups * (longest(t.ulysses_gradient_out) + longest(t.ulysses_gradient_in)));
    add_calls("sp.outer", true, true, forwards() * hops * longest(t.fetch));
    add_calls("sp.outer", true, false,
              backwards() * (hops * longest(t.fetch_again) + returns * longest(t.give_back)));
    add_calls("sp.outer", false, true, forwards() * longest(t.summaries));
    add_calls("sp.outer", false, false, backwards() * longest(t.summary_gradients));
  }

  // The exchanges of a group, or all else of it, in the phases of a forward or the backward.
  void add_calls(const std::string& group, bool exchanges, bool forward, double seconds) {
    double ms = 0, calls = 0;
    for (const OperationRow& row : report_.operations) {
      const bool phase = forward ? is_forward(row.phase) : row.phase == "backward";
      if (row.group != group || !phase || (row.op == "exchange") != exchanges) continue;
      if (row.payload_bytes <= 0) continue;
      ms += row.transfer_ms;
      calls += row.calls;
    }
    if (calls <= 0) return;
    add(fmt::format("{} {} {}: a call", group, exchanges ? "exchange" : "gather",
                    forward ? "forward" : "backward"),
        seconds / calls, ms / calls);
  }

  // The loss and the norm are summed as well, a few bytes.
  static constexpr double kSmallSum = 1024;

  BlockRuns runs_;
  const LayerPlan& plan_;
  const StepCost& step_;
  const Report& report_;
  std::vector<profile::PredictionRow> rows_;
};

int64_t most_tokens(const parallel::ShardPlan& shards) {
  int64_t most = 0;
  for (int rank = 0; rank < shards.mesh.sequence(); ++rank) {
    most = std::max(most, shards.tokens_of(rank));
  }
  return most;
}

std::optional<profile::Advice> advise(const config::LoadedJob& present,
                                      const config::LatentShape& shape, int precision,
                                      const config::Cluster& cluster, const Report& measured,
                                      const PredictionFiles& files) {
  if (measured.mesh.world() > kMostRanksAdvised) return std::nullopt;
  LayerPlanner planner(
      present.job, shape, measured.window.first_step, source_of(measured),
      model_of_run(measured_cluster(cluster, precision, measured).cluster, precision, measured));
  const std::vector<Candidate> candidates = make_candidates(present, shape, planner);
  const Candidate* const best = best_candidate(candidates);
  const auto own =
      std::find_if(candidates.begin(), candidates.end(), [&](const Candidate& candidate) {
        return candidate.legal() && candidate.same_as(present.job.parallel());
      });
  if (best == nullptr || own == candidates.end() || best == &*own) return std::nullopt;
  const double took = measured.step.median_seconds;
  const double error = std::abs(own->step.seconds / took - 1);
  const double saved = took * (1 - best->step.seconds / own->step.seconds);
  if (!(saved > error * took)) return std::nullopt;
  return profile::Advice{name_of(*best), saved / kMilli,
                         fmt::format("sprocket plan --config {} --cluster {} --from {}", files.job,
                                     files.cluster, files.profile)};
}

}  // namespace

profile::Prediction predict(const config::LoadedJob& loaded, const config::LatentShape& shape,
                            const config::Cluster& cluster, const Report& measured,
                            const PredictionFiles& files) {
  profile::Prediction prediction;
  prediction.cluster = cluster.name();
  if (measured.job.kind != "train" || measured.step.each_seconds.empty()) return prediction;
  const config::LoadedJob present = job_of_run(loaded, measured);
  config::check_latent_shape(present, shape, "the profiled job");
  const int precision = present.job.compute().precision();
  LayerPlanner planner(present.job, shape, measured.window.first_step, source_of(measured),
                       model_of_run(cluster, precision, measured));
  const LayerPlan plan = planner.plan(present.job);
  const StepCost step =
      step_cost(present.job, planner.cluster(), plan.cost, most_tokens(plan.shards));
  prediction.rows = Rows(present.job, plan, step, measured).make();
  prediction.advice = advise(present, shape, precision, cluster, measured, files);
  return prediction;
}

void add_cluster_figures(const config::Cluster& cluster, int precision, Report& report) {
  int ranks_of_host = 1;
  for (const profile::Host& host : report.machine.hosts) {
    ranks_of_host = std::max(ranks_of_host, host.ranks);
  }
  for (OperationRow& row : report.operations) {
    const auto link =
        std::find_if(cluster.link().begin(), cluster.link().end(),
                     [&](const config::Link& each) { return each.class_() == link_class_of(row); });
    if (!row.busbw_gb_s || link == cluster.link().end()) continue;
    double part = link->bandwidth_gb_s();
    if (link->duplex() == config::Link::HALF) part /= 2;
    if (link->adapter() == config::Link::SHARED) part /= ranks_of_host;
    row.link_gb_s = part;
    row.link_share = *row.busbw_gb_s / part;
  }
  const auto rates =
      std::find_if(cluster.rates().begin(), cluster.rates().end(),
                   [&](const config::KernelRates& each) { return each.precision() == precision; });
  if (!report.flops || rates == cluster.rates().end() || !rates->has_peak_tflops()) return;
  profile::StepWork& work = *report.flops;
  work.peak_per_second = 1e12 * rates->peak_tflops() * report.mesh.world();
  if (report.step.seconds > 0) {
    const double most = *work.peak_per_second * report.step.seconds;
    work.mfu = work.dense_equivalent / most;
    work.hfu = work.executed / most;
  }
}

}  // namespace sprocket::runtime

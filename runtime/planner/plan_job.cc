#include "runtime/planner/plan_job.h"

#include <span>

#include <fmt/format.h>

#include "base/error.h"
#include "runtime/media/output_file.h"
#include "runtime/plan/job_specs.h"
#include "runtime/plan/plan_report.h"
#include "runtime/plan/units.h"
#include "runtime/planner/measured_cluster.h"
#include "runtime/profile/report.h"

namespace sprocket::runtime {
namespace {

const std::vector<int> kLayoutRanks = {2, 4, 8};
const std::vector<double> kBudgets = {0.1, 0.2, 0.3};

std::string head_text(const config::LoadedJob& loaded, const config::LatentShape& shape,
                      const std::string& shape_source, const LayerPlanner& planner, int64_t step) {
  const config::Job& job = loaded.job;
  const ClusterModel& cluster = planner.cluster();
  const parallel::TokenLayout& layout = planner.layout();
  std::string text = fmt::format("Plan of {} on {}\n", loaded.name, cluster.name);
  const auto line = [&](const char* label, const std::string& value) {
    text += fmt::format("  {:<10} {}\n", label, value);
  };
  line("cluster",
       fmt::format("{} node{} x {} device{} of {}", cluster.nodes, cluster.nodes == 1 ? "" : "s",
                   cluster.devices, cluster.devices == 1 ? "" : "s",
                   gibibytes_text(cluster.device.memory)));
  line("model", fmt::format("{} parameters, {} layers, {} heads of {}, {}",
                            grouped(parameter_count(job)), job.model().layers(),
                            job.model().heads(), job.model().dim() / job.model().heads(),
                            config::Compute::Precision_Name(job.compute().precision())));
  line("video", fmt::format("latent {} x {} x {} x {} ({}): {} tokens in {} blocks, order {}",
                            shape.channels, shape.t, shape.h, shape.w, shape_source,
                            grouped(layout.tokens()), layout.blocks(),
                            config::Attention::Order_Name(job.attention().order())));
  line("attention", fmt::format("{} as in step {}",
                                config::Attention::Method_Name(job.attention().method()), step));
  line("selection", planner.source().description);
  return text + '\n';
}

// What of a profile is used in a plan.
struct FromProfile {
  MeasuredCluster cluster;
  std::string heading;  // of the plan
};

config::Job profiled_job(const profile::Report& report, const std::string& path) {
  try {
    return config::parse_job(report.job.description, path).job;
  } catch (const ConfigError& error) {
    throw InputError(fmt::format("{}: job.description: {}", path, error.what()));
  }
}

// Whether the selection depends on data, so that a measured one is worth more than the method's.
bool is_measured(const config::Attention& attention) {
  switch (attention.method()) {
    case config::Attention::DENSE:
    case config::Attention::SLIDING_TILE:
      return false;
    case config::Attention::VSA:
    case config::Attention::BSA:
    case config::Attention::PSA:
    case config::Attention::ASA:
      return true;
  }
  return false;
}

// Replaces the selection in `options` where the profile's is the job's.
FromProfile from_profile(const config::Job& job, const config::Cluster& cluster,
                         PlanOptions& options) {
  const profile::Report report = profile::read_report(options.from);
  const config::Job profiled = profiled_job(report, options.from);
  const int precision = job.compute().precision();
  if (profiled.compute().precision() != precision) {
    throw ConfigError(fmt::format("--from: {} was measured in {}, the job computes in {}",
                                  options.from,
                                  config::Compute::Precision_Name(profiled.compute().precision()),
                                  config::Compute::Precision_Name(job.compute().precision())));
  }
  FromProfile from{measured_cluster(cluster, precision, report), {}};
  from.heading = figures_text(from.cluster, options.from);
  const auto line = [&](const char* what, const std::string& value) {
    from.heading += fmt::format("  {:<29}{}\n", what, value);
  };
  const bool same = profiled.attention().SerializeAsString() == job.attention().SerializeAsString();
  const MeasuredSelection measured = measured_selection(report);
  if (!is_measured(job.attention())) {
    line("selection", "the method's own, which needs no data");
  } else if (!same) {
    line("selection", "not the profile's: its job has another attention");
  } else if (!measured.density) {
    line("selection", "the method's: the profile has no density");
  } else {
    options.selection.density = measured.density;
    options.selection.coverage = measured.coverage;
    line("selection",
         fmt::format("density {:.4g}{}, mean of the layers", *measured.density,
                     measured.coverage ? fmt::format(", coverage {:.4g} on {} outer ranks",
                                                     *measured.coverage, report.mesh.outer)
                                       : "; of one outer rank there is no coverage: synthetic"));
  }
  from.heading += '\n';
  return from;
}

}  // namespace

std::string run_plan(const config::LoadedJob& loaded, const config::LatentShape& shape,
                     const std::string& shape_source, const config::Cluster& described,
                     const PlanOptions& given) {
  const config::Job& job = loaded.job;
  config::check_latent_shape(loaded, shape, shape_source);
  PlanOptions options = given;
  config::Cluster cluster = described;
  std::string heading;
  if (!options.from.empty()) {
    const FromProfile from = from_profile(job, described, options);
    cluster = from.cluster.cluster;
    heading = from.heading;
  }
  // Schedules have reached their end.
  const int64_t step = job.training().steps() - 1;
  const parallel::TokenLayout layout = parallel::make_token_layout(token_layout_spec(job, shape));
  SelectionSource source = selection_source(job, layout, step, options.selection);
  if (!options.from.empty() && options.selection.density && options.selection.coverage) {
    source.description = fmt::format("density {:.4g} and coverage {:.4g}, measured", source.density,
                                     source.coverage);
  }
  LayerPlanner planner(job, shape, step, std::move(source),
                       cluster_model(cluster, job.compute().precision()));
  const std::vector<Candidate> candidates = make_candidates(loaded, shape, planner);
  if (!options.csv.empty()) {
    const std::string csv = candidates_csv(candidates);
    media::write_output_file(options.csv, std::as_bytes(std::span(csv)));
  }
  ReportOptions report;
  report.top = options.top;
  report.all = options.all;
  report.of_job = job.parallel();
  if (job.parallel().outer() == 0) {
    report.of_job.set_outer(planner.cluster().world() /
                            (job.parallel().data() * job.parallel().ulysses()));
  }
  std::string text = head_text(loaded, shape, shape_source, planner, step) + heading;
  text += candidates_text(candidates, planner.cluster(), report);
  if (const auto& table = planner.source().unbudgeted) {
    text += '\n' +
            coverage_text(coverage_by_order(without_prefix(layout), *table, kLayoutRanks, kBudgets),
                          kBudgets);
  }
  return text;
}

}  // namespace sprocket::runtime

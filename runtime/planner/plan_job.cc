#include "runtime/planner/plan_job.h"

#include <optional>
#include <span>
#include <sstream>

#include <fmt/format.h>

#include "base/error.h"
#include "runtime/media/output_file.h"
#include "runtime/plan/distillation_plan.h"
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

// Where the figures of a plan come from.
class Sources {
 public:
  // Throws for a profile that is not of the job's precision.
  Sources(const config::Job& job, const config::Cluster& described, const PlanOptions& options)
      : selection_(options.selection), cluster_(described) {
    if (options.from.empty()) return;
    const profile::Report report = profile::read_report(options.from);
    profiled_ = profiled_job(report, options.from);
    const int precision = job.compute().precision();
    if (profiled_->compute().precision() != precision) {
      throw ConfigError(
          fmt::format("--from: {} was measured in {}, the job computes in {}", options.from,
                      config::Compute::Precision_Name(profiled_->compute().precision()),
                      config::Compute::Precision_Name(job.compute().precision())));
    }
    const MeasuredCluster measured = measured_cluster(described, precision, report);
    measured_ = measured_selection(report);
    outer_ = report.mesh.outer;
    cluster_ = measured.cluster;
    heading_ = figures_text(measured, options.from);
  }

  ClusterModel cluster(const config::Job& job) const {
    return cluster_model(cluster_, job.compute().precision());
  }

  // `what`: the heading's name for its selection.
  LayerPlanner planner(const config::Job& job, const config::LatentShape& shape,
                       const std::string& what) {
    // Schedules have reached their end.
    const int64_t step = job.training().steps() - 1;
    const parallel::TokenLayout layout = parallel::make_token_layout(token_layout_spec(job, shape));
    const SelectionOptions options = profiled_ ? measured_for(job, what) : selection_;
    SelectionSource source = selection_source(job, layout, step, options);
    if (profiled_ && options.density && options.coverage) {
      source.description = fmt::format("density {:.4g} and coverage {:.4g}, measured",
                                       source.density, source.coverage);
    }
    return LayerPlanner(job, shape, step, std::move(source), cluster(job));
  }

  // What was taken from a profile; empty without one. After the planners were made.
  std::string heading() const { return heading_.empty() ? "" : heading_ + '\n'; }

 private:
  // The selection in place of which the profile's is put where that is of the same attention.
  SelectionOptions measured_for(const config::Job& job, const std::string& what) {
    SelectionOptions options = selection_;
    const auto line = [&](const std::string& value) {
      heading_ += fmt::format("  {:<29}{}\n", what, value);
    };
    const bool same =
        profiled_->attention().SerializeAsString() == job.attention().SerializeAsString();
    if (!is_measured(job.attention())) {
      line("the method's own, which needs no data");
    } else if (!same) {
      line("not the profile's: its job has another attention");
    } else if (!measured_.density) {
      line("the method's: the profile has no density");
    } else {
      options.density = measured_.density;
      options.coverage = measured_.coverage;
      line(fmt::format("density {:.4g}{}, mean of the layers", *measured_.density,
                       measured_.coverage ? fmt::format(", coverage {:.4g} on {} outer ranks",
                                                        *measured_.coverage, outer_)
                                          : "; of one outer rank there is no coverage: synthetic"));
    }
    return options;
  }

  SelectionOptions selection_;
  config::Cluster cluster_;
  std::optional<config::Job> profiled_;
  MeasuredSelection measured_;
  int outer_ = 1;
  std::string heading_;
};

std::string plan_of_training(const config::LoadedJob& loaded, const config::LatentShape& shape,
                             const std::string& shape_source, Sources& sources,
                             const PlanOptions& options) {
  const config::Job& job = loaded.job;
  LayerPlanner planner = sources.planner(job, shape, "selection");
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
  std::string text = head_text(loaded, shape, shape_source, planner, job.training().steps() - 1) +
                     sources.heading();
  text += candidates_text(candidates, planner.cluster(), report);
  if (const auto& table = planner.source().unbudgeted) {
    text += '\n' + coverage_text(coverage_by_order(without_prefix(planner.layout()), *table,
                                                   kLayoutRanks, kBudgets),
                                 kBudgets);
  }
  return text;
}

// A table of each network, with its name before every line.
std::string networks_csv(const DistillationPlan& plan) {
  std::string text;
  for (const NetworkPlan& network : plan.networks) {
    std::istringstream lines(candidates_csv(network.candidates));
    std::string line;
    std::getline(lines, line);
    if (text.empty()) text = "network," + line + '\n';
    while (std::getline(lines, line)) text += config::name_of(network.role) + ',' + line + '\n';
  }
  return text;
}

std::string plan_of_distillation(const config::LoadedJob& loaded, const config::LatentShape& shape,
                                 const std::string& shape_source, Sources& sources,
                                 const PlanOptions& options) {
  const ClusterModel cluster = sources.cluster(loaded.job);
  const DistillationPlan plan = plan_distillation(
      loaded, shape, cluster, [&](config::NetworkRole role, const config::Job& network) {
        return sources.planner(network, shape, "selection of " + config::name_of(role));
      });
  if (!options.csv.empty()) {
    const std::string csv = networks_csv(plan);
    media::write_output_file(options.csv, std::as_bytes(std::span(csv)));
  }
  const int64_t step = loaded.job.training().steps() - 1;
  std::string text = head_text(loaded, shape, shape_source, plan.networks.front().planner, step) +
                     sources.heading() + distillation_plan_text(loaded.job, shape, cluster, plan);
  if (!options.all) return text;
  for (const NetworkPlan& network : plan.networks) {
    ReportOptions report;
    report.all = true;
    report.of_job = network.loaded.job.parallel();
    text += fmt::format("\n{} by itself\n", config::name_of(network.role)) +
            candidates_text(network.candidates, cluster, report);
  }
  return text;
}

}  // namespace

std::string run_plan(const config::LoadedJob& loaded, const config::LatentShape& shape,
                     const std::string& shape_source, const config::Cluster& described,
                     const PlanOptions& options) {
  config::check_latent_shape(loaded, shape, shape_source);
  Sources sources(loaded.job, described, options);
  const auto plan = loaded.job.has_distillation() ? plan_of_distillation : plan_of_training;
  return plan(loaded, shape, shape_source, sources, options);
}

}  // namespace sprocket::runtime

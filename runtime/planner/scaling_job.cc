#include "runtime/planner/scaling_job.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <span>

#include <fmt/format.h>

#include "base/error.h"
#include "parallel/attention/domain_imports.h"
#include "runtime/media/output_file.h"
#include "runtime/media/png.h"
#include "runtime/plan/job_specs.h"
#include "runtime/plan/units.h"
#include "runtime/planner/line_chart.h"
#include "runtime/planner/selection_sources.h"

namespace sprocket::runtime {
namespace {

constexpr double kBudget = 0.25;

const std::vector<std::pair<std::string, Colour>> kStrategies = {{"ring", {214, 96, 40}},
                                                                 {"Ulysses", {150, 84, 170}},
                                                                 {"hybrid", {44, 140, 90}},
                                                                 {"selected", {20, 90, 180}}};
constexpr Colour kIdeal = {130, 136, 146};

std::string short_count(int64_t count) {
  return count >= 1024 && count % 1024 == 0 ? fmt::format("{}k", count / 1024)
                                            : std::to_string(count);
}

// Speed over that of one device: what is left of n devices.
double speed(const ScalingPoint& point) { return point.ranks * point.efficiency; }

ChartPanel panel_of(const std::vector<ScalingPoint>& points, bool weak) {
  ChartPanel panel;
  panel.title =
      weak ? "Weak scaling: the same tokens for every rank" : "Strong scaling: the same sequence";
  panel.x_label = "ranks";
  panel.y_label = weak ? "efficiency" : "times one device";
  panel.log_y = !weak;
  int least = points.front().ranks, most = least;
  for (const ScalingPoint& point : points) {
    least = std::min(least, point.ranks);
    most = std::max(most, point.ranks);
  }
  if (most == least) most = 2 * least;
  for (int64_t ranks = least; ranks <= most; ranks *= 2) {
    panel.x_ticks.push_back({static_cast<double>(ranks), short_count(ranks)});
  }
  if (weak) {
    for (int percent = 0; percent <= 100; percent += 20) {
      panel.y_ticks.push_back({percent / 100.0, fmt::format("{} %", percent)});
    }
  } else {
    double lowest = least;
    for (const ScalingPoint& point : points) {
      if (!point.weak) lowest = std::min(lowest, speed(point));
    }
    const double first = std::exp2(std::floor(std::log2(lowest)));
    for (double value = first; value <= most; value *= 2) {
      panel.y_ticks.push_back({value, value < 1 ? fmt::format("1/{:g}", 1 / value)
                                                : short_count(static_cast<int64_t>(value))});
    }
  }
  for (const auto& [name, colour] : kStrategies) {
    ChartLine line{name, colour, false, {}};
    for (const ScalingPoint& point : points) {
      if (point.weak != weak || point.strategy != name) continue;
      line.points.emplace_back(point.ranks, weak ? point.efficiency : speed(point));
    }
    panel.lines.push_back(std::move(line));
  }
  panel.lines.push_back(
      {"ideal", kIdeal, true, {{least, weak ? 1 : least}, {most, weak ? 1 : most}}});
  return panel;
}

}  // namespace

media::Image draw_scaling(const std::string& title, const std::vector<std::string>& subtitle,
                          const std::vector<ScalingPoint>& points) {
  SPROCKET_CHECK(!points.empty(), "nothing to draw");
  return draw_chart(title, subtitle, {panel_of(points, false), panel_of(points, true)});
}

std::string run_scaling(const config::LoadedJob& loaded, const config::LatentShape& shape,
                        const std::string& shape_source, const config::Cluster& cluster,
                        const ScalingOptions& options) {
  const config::Job& job = loaded.job;
  config::check_latent_shape(loaded, shape, shape_source);
  const parallel::AttentionSpec spec = attention_spec(job.attention(), job.training().steps() - 1);
  const parallel::TokenLayout layout = parallel::make_token_layout(token_layout_spec(job, shape));
  ScalingSpec scaling;
  scaling.ranks = parse_scale(options.scale);
  scaling.density = options.density.value_or(stated_density(spec).value());
  const auto budget = parallel::domain_budget(layout, spec.budget);
  scaling.budget =
      options.coverage.value_or(budget ? budget->max_coverage.front().value() : kBudget);
  check_figures(scaling.density, scaling.budget);
  const ClusterModel model = cluster_model(cluster, job.compute().precision());
  const std::vector<ScalingPoint> points = simulate_scaling(job, shape, model, scaling);
  if (points.empty()) {
    throw ConfigError(fmt::format("--scale {}: no number of ranks is legal for {} blocks",
                                  options.scale, layout.blocks()));
  }
  if (!options.csv.empty()) {
    const std::string csv = scaling_csv(points);
    media::write_output_file(options.csv, std::as_bytes(std::span(csv)));
  }
  const std::string what =
      fmt::format("{} tokens, {} heads of {}, density {:g}, budget {:g}", grouped(layout.tokens()),
                  job.model().heads(), job.model().dim() / job.model().heads(), scaling.density,
                  scaling.budget);
  if (!options.picture.empty()) {
    media::write_png(
        options.picture,
        draw_scaling("A block of the transformer, forward and backward, simulated",
                     {what + (points.front().ranks > 1 ? fmt::format(" (weak scaling: on {} ranks)",
                                                                     scaling.ranks.front())
                                                       : ""),
                      fmt::format("nodes of {} devices: {}", model.devices, model.name)},
                     points));
  }
  return fmt::format("Simulation of {} on nodes of {} devices, {}\n  {}\n\n{}", loaded.name,
                     model.devices, model.name, what, scaling_text(points));
}

}  // namespace sprocket::runtime

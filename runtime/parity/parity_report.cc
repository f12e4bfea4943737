#include "runtime/parity/parity_report.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "runtime/plan/job_specs.h"

namespace sprocket::runtime {
namespace {

using nlohmann::json;

constexpr int64_t kRowsWhenPassed = 10;
constexpr int64_t kMostRows = 50;

std::string shape_text(const std::vector<int64_t>& shape) {
  return shape.empty() ? "scalar" : fmt::format("[{}]", fmt::join(shape, ", "));
}

const std::string& precision_name(const config::Job& job) {
  return config::Compute::Precision_Name(job.compute().precision());
}

std::string mesh_text(const config::Job& job) {
  const parallel::MeshShape mesh = mesh_shape(job);
  return fmt::format("{} rank{} (data {} x outer {} x ulysses {}, {})", mesh.world(),
                     mesh.world() == 1 ? "" : "s", mesh.data, mesh.outer, mesh.ulysses,
                     config::Parallel::Strategy_Name(job.parallel().strategy()));
}

std::string verdict(const ParitySubject& subject, const ParityComparison& comparison) {
  const ParityRow& worst = comparison.rows.front();
  if (comparison.passed()) {
    return fmt::format(
        "PASSED: all {} tensors agree; the worst, {}, is at {:.2g} of what is allowed",
        comparison.rows.size(), worst.name, worst.ratio());
  }
  return fmt::format(
      "FAILED: {} of {} tensors are off; the worst, {}, by {:.3g} times what is "
      "allowed",
      comparison.failed(), comparison.rows.size(), worst.name, worst.ratio());
}

int64_t differing(const ParityComparison& comparison) {
  return std::accumulate(comparison.differing_selections.begin(),
                         comparison.differing_selections.end(), int64_t{0});
}

std::string selections_text(const ParitySubject& subject, const ParityComparison& comparison) {
  const int64_t layers = std::ssize(comparison.differing_selections);
  if (layers == 0) {
    return subject.resolved.compute().precision() == config::Compute::FP64
               ? fmt::format("none depends on the data, density {:.3f}", subject.density)
               : fmt::format("those of the ranks throughout, density {:.3f}; fp64 compares them",
                             subject.density);
  }
  const std::string rows = fmt::format("{} rows of {} layers", comparison.selections, layers);
  if (differing(comparison) == 0) {
    return fmt::format("the same in all {}, density {:.3f}", rows, subject.density);
  }
  std::vector<std::string> where;
  for (int64_t layer = 0; layer < layers; ++layer) {
    const int64_t count = comparison.differing_selections[layer];
    if (count > 0) where.push_back(fmt::format("{} in layer {}", count, layer));
  }
  return fmt::format("differ in {} of the {}: {}", differing(comparison), rows,
                     fmt::join(where, ", "));
}

std::string row_table(const ParityComparison& comparison) {
  const int64_t all = std::ssize(comparison.rows);
  const int64_t listed = std::min({all, kMostRows, std::max(kRowsWhenPassed, comparison.failed())});
  size_t name = 6, shape = 5;
  for (int64_t i = 0; i < listed; ++i) {
    name = std::max(name, comparison.rows[i].name.size());
    shape = std::max(shape, shape_text(comparison.rows[i].shape).size());
  }
  std::string text = fmt::format("  {:<{}}  {:<{}} {:>10} {:>10} {:>10}\n", "tensor", name, "shape",
                                 shape, "error", "allowed", "ratio");
  for (int64_t i = 0; i < listed; ++i) {
    const ParityRow& row = comparison.rows[i];
    text += fmt::format("  {:<{}}  {:<{}} {:>10.3g} {:>10.3g} {:>10.3g}{}\n", row.name, name,
                        shape_text(row.shape), shape, row.error, row.allowed, row.ratio(),
                        row.passed() ? "" : "  off");
  }
  if (listed < all) text += fmt::format("  and {} better ones\n", all - listed);
  return text;
}

}  // namespace

std::string parity_text(const ParitySubject& subject, const ParityComparison& comparison) {
  const config::Job& job = subject.resolved;
  std::string text = verdict(subject, comparison) + "\n\n";
  const auto line = [&](const char* label, const std::string& value) {
    text += fmt::format("  {:<10}  {}\n", label, value);
  };
  line("job", fmt::format("{} in {}", subject.job, precision_name(job)));
  line("ranks", mesh_text(job) + " against one");
  line("data", subject.samples);
  line("attention",
       fmt::format("{} at step {}", config::Attention::Method_Name(job.attention().method()),
                   subject.attention_step));
  line("selections", selections_text(subject, comparison));
  line("error", job.compute().precision() == config::Compute::FP64
                    ? "against one rank, of the tensor's norm"
                    : fmt::format("against one rank in FP64, of the tensor's norm; allowed: twice "
                                  "that of one rank in {}",
                                  precision_name(job)));
  return text + '\n' + row_table(comparison);
}

std::string parity_json(const ParitySubject& subject, const ParityComparison& comparison) {
  const config::Job& job = subject.resolved;
  const parallel::MeshShape mesh = mesh_shape(job);
  json rows = json::array();
  for (const ParityRow& row : comparison.rows) {
    // JSON has no infinity and no NaN: null.
    rows.push_back({{"name", row.name},
                    {"shape", row.shape},
                    {"error", row.error},
                    {"allowed", row.allowed},
                    {"ratio", row.ratio()},
                    {"passed", row.passed()}});
  }
  const json report = {
      {"schema", kParityReportSchema},
      {"passed", comparison.passed()},
      {"job", subject.job},
      {"precision", precision_name(job)},
      {"method", config::Attention::Method_Name(job.attention().method())},
      {"strategy", config::Parallel::Strategy_Name(job.parallel().strategy())},
      {"mesh", {{"data", mesh.data}, {"outer", mesh.outer}, {"ulysses", mesh.ulysses}}},
      {"samples", subject.samples},
      {"attention_step", subject.attention_step},
      {"density", subject.density},
      {"selections",
       {{"rows", comparison.selections}, {"differing_by_layer", comparison.differing_selections}}},
      {"tensors", rows}};
  return report.dump(2) + "\n";
}

}  // namespace sprocket::runtime

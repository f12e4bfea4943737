#include "runtime/profile/verdict.h"

#include <algorithm>

#include <fmt/format.h>

#include "runtime/profile/quantity.h"

namespace sprocket::profile {
namespace {

double attention_share(const Report& r) {
  double ms = 0;
  for (const KernelRow& kernel : r.kernels) {
    if (kernel.name.starts_with("attention.") && kernel.activity == "compute") ms += kernel.ms;
  }
  return 1e-3 * ms / r.step.seconds;
}

std::string parts_line(const Report& r) {
  std::string line =
      fmt::format("step {} ({} {}, {} {}): compute {} (attention {})", seconds_text(r.step.seconds),
                  r.ranks.size(), r.ranks.size() == 1 ? "rank" : "ranks", r.window.steps,
                  r.window.steps == 1 ? "step" : "steps", percent(r.shares.compute),
                  percent(attention_share(r)));
  if (r.mesh.world() > 1) {
    line += fmt::format(", exposed communication {}", percent(r.shares.exposed_communication));
  }
  return line + fmt::format(", copies {}, data wait {}, other {}", percent(r.shares.copies),
                            percent(r.shares.data_wait), percent(r.shares.other));
}

std::string layers_text(const Blame& blame) {
  if (blame.first_layer < 0) return blame.kernel.empty() ? "its compute" : blame.kernel;
  return blame.first_layer == blame.last_layer
             ? fmt::format("its layer {}", blame.first_layer)
             : fmt::format("its layers {}-{}", blame.first_layer, blame.last_layer);
}

std::string against(const Blame& blame) {
  constexpr double kTellingFactor = 1.05;
  return blame.factor >= kTellingFactor && blame.factor < 100
             ? fmt::format("{:.1f} times the mean of the others, {} more a step", blame.factor,
                           ms_text(blame.excess_ms))
             : fmt::format("{} more a step than the others", ms_text(blame.excess_ms));
}

std::string blame_line(const Blame& blame) {
  const std::string who =
      fmt::format("{} is waiting for rank {}", percent(blame.waited_share), blame.rank);
  switch (blame.cause) {
    case Cause::kCompute: {
      const bool selects_more = blame.density_factor > 1.1;
      return fmt::format(
          "{}: {} compute{} {}{}", who, layers_text(blame),
          blame.first_layer == blame.last_layer ? "s" : "", against(blame),
          selects_more ? fmt::format(" (it selects {:.1f} times as much)", blame.density_factor)
                       : "");
    }
    case Cause::kDataWait:
      return fmt::format("{}: loading its data takes {}", who, against(blame));
    case Cause::kCopies:
      return fmt::format("{}: its copies take {}", who, against(blame));
    case Cause::kOther:
      return fmt::format("{}: its work between scopes takes {}", who, against(blame));
    case Cause::kLink:
      return fmt::format(
          "{}: its messages arrive last, {} a step after all others: look at its link", who,
          ms_text(blame.excess_ms));
    case Cause::kUnknown:
      return fmt::format("{}, which takes no longer than the others for anything that was recorded",
                         who);
  }
  return who;
}

std::string operation_line(const OperationRow& row) {
  std::string line =
      fmt::format("most in flight: {} {} ({}), {} of transfer and {} of waiting a step", row.group,
                  row.op, row.phase, ms_text(row.transfer_ms), ms_text(row.wait_ms));
  if (row.busbw_gb_s) line += fmt::format(", busbw {:.2f} GB/s", *row.busbw_gb_s);
  if (row.link_share) line += fmt::format(", {} of its link", percent(*row.link_share));
  return line;
}

}  // namespace

std::vector<std::string> verdict(const Report& r, const std::optional<Blame>& blame) {
  std::vector<std::string> lines = {parts_line(r)};
  if (blame) lines.push_back(blame_line(*blame));
  if (!r.operations.empty() && r.operations.front().transfer_ms > 0) {
    lines.push_back(operation_line(r.operations.front()));
  }
  if (!r.window.complete && !r.window.notes.empty()) {
    lines.push_back("incomplete: " + r.window.notes.front());
  }
  return lines;
}

void add_advice_line(Report& report) {
  if (!report.prediction || !report.prediction->advice) return;
  const Advice& advice = *report.prediction->advice;
  report.verdict.push_back(fmt::format("{} is predicted to save {} a step: {}", advice.change,
                                       ms_text(advice.saves_ms), advice.command));
}

}  // namespace sprocket::profile

#include "runtime/plan/plan_report.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "runtime/plan/units.h"

namespace sprocket::runtime {
namespace {

// "K, V" of the table.
std::string pool_text(const Candidate& candidate) {
  if (!candidate.has_outer()) return "-";
  switch (candidate.parallel.strategy()) {
    case config::Parallel::RING:
      return "pass on";
    case config::Parallel::SELECTED:
    case config::Parallel::ALL_GATHER:
      return candidate.parallel.remote_kv() == config::Parallel::FETCH_AGAIN ? "again" : "keep";
  }
  return "-";
}

std::string mesh_text(const Candidate& candidate) {
  const config::Parallel& parallel = candidate.parallel;
  return fmt::format("{} x {} x {}", parallel.data(), parallel.outer(), parallel.ulysses());
}

constexpr char kColumns[] =
    "{} {:<13}{:<11}{:<8}{:>9}{:>6}{:>11}{:>6}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}";

std::string row_text(const Candidate& c, bool of_job) {
  const auto megabytes = [](int64_t bytes) { return megabytes_text(static_cast<double>(bytes)); };
  return fmt::format(kColumns, of_job ? "*" : " ", mesh_text(c), strategy_name(c), pool_text(c),
                     megabytes(c.forward_bytes), c.forward_messages, megabytes(c.backward_bytes),
                     c.backward_messages, megabytes(c.step_bytes),
                     c.has_outer() ? fmt::format("{:.2f}", c.coverage) : "-",
                     gibibytes_text(static_cast<double>(c.memory.total())),
                     seconds_text(c.step.layer_forward), seconds_text(c.step.layer_backward),
                     seconds_text(c.step.exposed), seconds_text(c.step.seconds)) +
         (c.fits ? "\n" : "  does not fit\n");
}

std::string illegal_text(const std::vector<Candidate>& candidates) {
  // One line for a mesh whose strategies are all refused for the same reasons.
  std::vector<std::pair<std::string, std::vector<std::string>>> lines;
  std::map<std::string, size_t> seen;
  for (const Candidate& candidate : candidates) {
    if (candidate.legal()) continue;
    const std::string key =
        mesh_text(candidate) + fmt::format("{}", fmt::join(candidate.reasons, "; "));
    const auto [found, is_new] = seen.emplace(key, lines.size());
    if (is_new) {
      lines.emplace_back(fmt::format("  {:<13}", mesh_text(candidate)) +
                             "{}: " + fmt::format("{}", fmt::join(candidate.reasons, "; ")),
                         std::vector<std::string>());
    }
    auto& strategies = lines[found->second].second;
    const std::string name = strategy_name(candidate);
    if (std::find(strategies.begin(), strategies.end(), name) == strategies.end()) {
      strategies.push_back(name);
    }
  }
  if (lines.empty()) return "\nEverything is legal.\n";
  std::string text = "\nNot legal\n";
  for (const auto& [line, strategies] : lines) {
    const size_t at = line.find("{}");
    text += line.substr(0, at) + fmt::format("{}", fmt::join(strategies, ", ")) +
            line.substr(at + 2) + '\n';
  }
  return text;
}

// AUTO is what a run would choose with a device's memory.
config::Parallel resolved(config::Parallel parallel, const std::vector<Candidate>& candidates) {
  if (parallel.remote_kv() != config::Parallel::AUTO) return parallel;
  parallel.set_remote_kv(config::Parallel::KEEP);
  for (const Candidate& candidate : candidates) {
    if (candidate.legal() && candidate.same_as(parallel) && !candidate.fits) {
      parallel.set_remote_kv(config::Parallel::FETCH_AGAIN);
      break;
    }
  }
  return parallel;
}

// The fastest of the candidates that do not fit, if it is faster than `best`.
const Candidate* faster_without_room(const std::vector<Candidate>& candidates,
                                     const Candidate& best) {
  for (const Candidate& candidate : candidates) {
    if (candidate.legal() && !candidate.fits) {
      return candidate.step.seconds < best.step.seconds ? &candidate : nullptr;
    }
  }
  return nullptr;
}

// The fastest that differs in mesh or strategy, not in what becomes of K and V alone.
const Candidate* next_kind(const std::vector<Candidate>& candidates, const Candidate& best) {
  for (const Candidate& candidate : candidates) {
    if (!candidate.legal() || !candidate.fits) break;
    if (mesh_text(candidate) != mesh_text(best) ||
        strategy_name(candidate) != strategy_name(best)) {
      return &candidate;
    }
  }
  return nullptr;
}

std::string reason(const Candidate& best, const Candidate& next) {
  const double exposed = next.step.exposed - best.step.exposed;
  const double rest = next.step.seconds - best.step.seconds - exposed;
  if (exposed >= rest) {
    const std::string less = next.step_bytes > best.step_bytes
                                 ? fmt::format(" and sends {} instead of {}",
                                               megabytes_text(static_cast<double>(next.step_bytes)),
                                               megabytes_text(static_cast<double>(best.step_bytes)))
                                 : "";
    return fmt::format(
        "it leaves {} of communication a step that no kernel hides, where {} leaves {}{}",
        seconds_text(best.step.exposed), name_of(next), seconds_text(next.step.exposed), less);
  }
  return fmt::format("its kernels and copies take {} a step, those of {} {}",
                     seconds_text(best.step.seconds - best.step.exposed), name_of(next),
                     seconds_text(next.step.seconds - next.step.exposed));
}

}  // namespace

std::string candidates_text(const std::vector<Candidate>& candidates, const ClusterModel& cluster,
                            const ReportOptions& options) {
  std::string text =
      "Sent: by the rank that sends most. Times: of the slowest rank. Exposed: communication that "
      "no "
      "kernel hides.\nK, V: of other ranks, kept for the backward or fetched again.\n\n";
  text += fmt::format(kColumns, " ", "", "", "", "forward,", "", "backward,", "", "sent in", "", "",
                      "layer", "layer", "exposed", "a whole") +
          '\n';
  text += fmt::format(kColumns, " ", "data x o x u", "strategy", "K, V", "a layer", "msgs",
                      "a layer", "msgs", "a step", "coverage", "memory", "forward", "backward",
                      "in a step", "step") +
          '\n';
  const config::Parallel of_job = resolved(options.of_job, candidates);
  int listed = 0, left = 0;
  bool marked = false;
  for (const Candidate& candidate : candidates) {
    if (!candidate.legal()) break;
    const bool is_job = candidate.same_as(of_job);
    if (!options.all && listed >= options.top && !is_job) {
      ++left;
      continue;
    }
    text += row_text(candidate, is_job);
    marked = marked || is_job;
    ++listed;
  }
  if (left > 0) text += fmt::format("  and {} more (--top N, --all)\n", left);
  if (marked) text += "  * as the job is written\n";
  text += fmt::format("\n{}\n", recommendation(candidates, cluster));
  if (options.all) text += illegal_text(candidates);
  return text;
}

std::string recommendation(const std::vector<Candidate>& candidates, const ClusterModel& cluster) {
  const Candidate* const best = best_candidate(candidates);
  if (best == nullptr) {
    if (candidates.empty() || !candidates.front().legal()) {
      return fmt::format("Nothing is legal on {} ranks; --all says why.", cluster.world());
    }
    const auto least = std::min_element(
        candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
          return std::pair(!a.legal(), a.memory.total()) < std::pair(!b.legal(), b.memory.total());
        });
    return fmt::format(
        "Nothing fits into {} of a device; the least, {}, is needed by {}: more ranks, "
        "training.activation_checkpointing: BLOCK or a smaller micro_batch help.",
        gibibytes_text(cluster.device.memory),
        gibibytes_text(static_cast<double>(least->memory.total())), name_of(*least));
  }
  std::string text =
      fmt::format("Recommended: {}: {} a step", name_of(*best), seconds_text(best->step.seconds));
  if (const Candidate* next = next_kind(candidates, *best)) {
    text += fmt::format(", {:.2f} times as fast as the next, because {}",
                        next->step.seconds / best->step.seconds, reason(*best, *next));
  } else {
    text += ", the only way that is legal and fits";
  }
  if (const Candidate* faster = faster_without_room(candidates, *best)) {
    text += fmt::format("; {} would take {} but needs {} of {}", name_of(*faster),
                        seconds_text(faster->step.seconds),
                        gibibytes_text(static_cast<double>(faster->memory.total())),
                        gibibytes_text(cluster.device.memory));
  }
  return text + ".";
}

std::string candidates_csv(const std::vector<Candidate>& candidates) {
  std::string text =
      "data,outer,ulysses,strategy,remote_kv,legal,fits,density,coverage,"
      "forward_bytes,forward_messages,backward_bytes,backward_messages,step_bytes,step_messages,"
      "memory_bytes,attention_forward_s,attention_backward_s,attention_forward_kernels_s,"
      "attention_backward_kernels_s,attention_forward_exposed_s,"
      "attention_backward_exposed_s,layer_forward_s,layer_backward_s,gradient_sum_s,exposed_s,"
      "step_s,reason\n";
  for (const Candidate& c : candidates) {
    text += fmt::format("{},{},{},{},{},{},{}", c.parallel.data(), c.parallel.outer(),
                        c.parallel.ulysses(), strategy_name(c), pool_text(c), c.legal(), c.fits);
    if (!c.legal()) {
      std::string why = fmt::format("{}", fmt::join(c.reasons, "; "));
      std::replace(why.begin(), why.end(), '"', '\'');
      text += std::string(21, ',') + '"' + why + "\"\n";
      continue;
    }
    text += fmt::format(
        ",{:.6g},{:.6g},{},{},{},{},{},{},{},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},"
        "{:.6g},{:.6g},{:.6g},{:.6g},\n",
        c.density, c.coverage, c.forward_bytes, c.forward_messages, c.backward_bytes,
        c.backward_messages, c.step_bytes, c.step_messages, c.memory.total(),
        c.attention.forward.seconds(), c.attention.backward.seconds(), c.attention.forward.kernels,
        c.attention.backward.kernels, c.attention.forward.exposed, c.attention.backward.exposed,
        c.step.layer_forward, c.step.layer_backward, c.step.gradient_sum, c.step.exposed,
        c.step.seconds);
  }
  return text;
}

std::string coverage_text(const std::vector<OrderCoverage>& orders,
                          const std::vector<double>& budgets) {
  std::string text = "Shard layouts without a budget: needed rows of other ranks / all of them\n";
  text += fmt::format("  {:<13}{:>6}{:>10}", "order", "ranks", "coverage");
  for (const double budget : budgets) {
    text += fmt::format("{:>16}", fmt::format("kept with {:g}", budget));
  }
  text += '\n';
  bool cuts = false;
  for (const OrderCoverage& order : orders) {
    text +=
        fmt::format("  {:<13}{:>6}{:>10.3f}", name_of(order.order), order.ranks, order.coverage);
    for (const double kept : order.kept) text += fmt::format("{:>16.3f}", kept);
    text += order.cuts_blocks ? "  +\n" : "\n";
    cuts = cuts || order.cuts_blocks;
  }
  text +=
      "  kept: selected pairs that are left when a rank imports at most that share of the rows "
      "of others\n";
  if (cuts) text += "  + its shards cut through blocks of this selection\n";
  return text;
}

}  // namespace sprocket::runtime

#include "runtime/plan/scaling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include <fmt/format.h>

#include "base/error.h"
#include "parallel/attention/selected_plan.h"
#include "parallel/token_layout.h"
#include "runtime/plan/attention_cost.h"
#include "runtime/plan/flops.h"
#include "runtime/plan/job_specs.h"
#include "runtime/plan/step_cost.h"
#include "runtime/plan/units.h"

namespace sprocket::runtime {
namespace {

constexpr int kMostRanks = 1 << 20;

struct Way {
  const char* name;
  OuterKind outer;
  int ulysses;
};

struct Problem {
  double tokens = 0, block_tokens = 0;
  double heads = 0, head_dim = 0, batch = 0;
  double element = 4, accumulator = 4;
  double density = 1, budget = 1;
  int gates = 0;
  bool coarse = false, scores = false;  // VSA's branch; a selection by block means

  double blocks() const { return tokens / block_tokens; }
  double pairs() const { return batch * heads * density * tokens * tokens; }
};

// The exchanges of a rank among `members` ranks of which those of its own node are `inside`.
struct Group {
  const ClusterModel& cluster;
  int members = 1, inside = 1;
  double sharing = 1;  // ranks of a node that do the same at once

  TransferTime all(double bytes_to_each, int messages = 1) const {
    if (members == 1) return {};
    Flow flow;
    flow.add_sent(LinkClass::kInsideNode, bytes_to_each * (inside - 1), messages * (inside - 1));
    flow.add_sent(LinkClass::kBetweenNodes, bytes_to_each * (members - inside),
                  messages * (members - inside));
    flow.received = flow.sent;
    return transfer_time(cluster, flow, node_of(flow));
  }
  // To the next and from the one before; a ring over several nodes waits for its slowest link.
  TransferTime shift(double bytes) const {
    if (members == 1) return {};
    const LinkClass link = inside < members ? LinkClass::kBetweenNodes : LinkClass::kInsideNode;
    Flow flow;
    flow.add_sent(link, bytes, 1);
    flow.received = flow.sent;
    Flow node = node_of(flow);
    // Of the members inside a node one sends out of it.
    for (double* bytes_of : {&node.sent[1], &node.received[1]}) *bytes_of /= inside;
    return transfer_time(cluster, flow, node);
  }

 private:
  Flow node_of(Flow flow) const {
    for (int which = 0; which < kLinkClasses; ++which) {
      flow.sent[which] *= sharing;
      flow.received[which] *= sharing;
    }
    return flow;
  }
};

RankWork rank_work(const Problem& p, int degree, int ulysses, double coverage) {
  const double ranks = double{1} * degree * ulysses;
  RankWork work;
  work.own_elements = p.batch * p.tokens * p.heads * p.head_dim / ranks;
  work.shard_elements = work.key_elements = work.own_elements;
  work.query_rows = work.shard_elements / p.head_dim;
  const double pairs = p.pairs() / ranks;
  // Selected pairs are spread evenly over the own rows and the needed ones, however they travel.
  const double reachable = 1 + coverage * (degree - 1);
  work.pairs.assign(degree, pairs * coverage / reachable);
  work.pairs[0] = pairs / reachable;
  const double all = 2 * work.shard_elements * coverage * (degree - 1);
  work.sent_elements = work.received_elements = work.returned_elements = all;
  if (p.scores) {
    const double block_pairs = p.batch * p.heads / ulysses * p.blocks() / degree * p.blocks();
    const double scores = 2 * p.head_dim * block_pairs;
    work.summary_elements = 3 * work.shard_elements;
    work.selection_operations = (p.coarse ? 2 : 1) * scores;
    work.selection_gradient_operations = p.coarse ? 5 * scores : 0;
  }
  return work;
}

struct Sent {
  double bytes = 0;
  Transfers add(double each, double messages, TransferTime time) {
    bytes += each * messages;
    return {time};
  }
};

void append(Transfers& to, const Transfers& more) {
  if (to.empty()) {
    to = more;
  } else {
    to[0].seconds += more[0].seconds;
  }
}

// nullopt: not legal.
std::optional<ScalingPoint> simulate(const config::Job& job, const Problem& p,
                                     const ClusterModel& cluster, const Way& way, int ranks) {
  if (ranks % way.ulysses != 0) return std::nullopt;
  const int degree = ranks / way.ulysses;
  if (std::fmod(p.heads, way.ulysses) != 0 || degree > p.blocks()) return std::nullopt;
  const double own_blocks = p.blocks() / degree;
  const double coverage =
      degree == 1 ? 0 : std::min(p.budget, 1 - std::pow(1 - p.density, own_blocks));
  AttentionWork work;
  work.outer = degree == 1 ? OuterKind::kLocal : way.outer;
  work.outer_degree = degree;
  work.ulysses_degree = way.ulysses;
  work.head_dim = static_cast<int>(p.head_dim);
  work.element = p.element;
  work.accumulator = p.accumulator;
  work.gates = p.gates;
  work.branches = p.coarse;
  work.head_groups = parallel::head_groups(
      strategy_spec(job, 1), {1, degree, way.ulysses},
      attention_spec(job.attention(), job.training().steps() - 1), job.model().heads());
  if (work.outer == OuterKind::kSelected) {
    work.fetch_groups = static_cast<int>(std::ssize(parallel::fetch_groups(
        strategy_spec(job, 1), static_cast<int64_t>(p.batch * p.heads) / way.ulysses)));
  }
  work.ranks = {rank_work(p, degree, way.ulysses, coverage)};

  const int node = std::min(cluster.devices, ranks);
  const Group heads{cluster, way.ulysses, std::min(way.ulysses, node), static_cast<double>(node)};
  const Group outer{cluster, degree, std::max(1, node / way.ulysses), static_cast<double>(node)};
  AttentionTransfers& t = work.transfers;
  Sent sent;
  const double u = work.ranks[0].own_elements * p.element, inputs = 3 + p.gates;
  if (way.ulysses > 1) {
    const double part = u / way.ulysses, others = way.ulysses - 1;
    const double of_group = part / work.head_groups;
    t.ulysses_in = t.ulysses_gradient_in =
        sent.add(2 * inputs * part, others, heads.all(inputs * of_group));
    t.ulysses_out = t.ulysses_gradient_out = sent.add(2 * part, others, heads.all(of_group));
  }
  const double others = degree - 1;
  if (degree > 1 && p.scores) {
    const double means =
        (p.coarse ? 2 : 1) * work.ranks[0].own_elements / p.block_tokens * p.accumulator;
    t.summaries = sent.add(means, others, outer.all(means));
    if (p.coarse) t.summary_gradients = sent.add(means, others, outer.all(means));
  }
  switch (work.outer) {
    case OuterKind::kLocal:
      break;
    case OuterKind::kRing:
      t.fetch = t.fetch_again = sent.add(2 * 2 * u, others, outer.shift(2 * u));
      t.give_back = sent.add(2 * u * p.accumulator / p.element, degree,
                             outer.shift(2 * u * p.accumulator / p.element));
      break;
    case OuterKind::kAllGather:
    case OuterKind::kSelected: {
      const double each = 2 * u * coverage;
      t.fetch = t.give_back = sent.add(2 * each, others, outer.all(each, work.fetch_groups));
      const double bitmap = std::ceil(p.batch * p.heads / way.ulysses * p.blocks() / 8);
      append(t.summaries, sent.add(bitmap, others, outer.all(bitmap)));
      break;
    }
  }
  const AttentionCost attention = attention_cost(cluster.device, work);
  const StepCost step = step_cost(job, cluster, attention, static_cast<int64_t>(p.tokens / ranks));

  AttentionWork alone = work;
  alone.outer = OuterKind::kLocal;
  alone.outer_degree = alone.ulysses_degree = alone.head_groups = 1;
  alone.ranks[0].pairs = {p.pairs() / ranks};
  alone.transfers = {};
  const StepCost ideal = step_cost(job, cluster, attention_cost(cluster.device, alone),
                                   static_cast<int64_t>(p.tokens / ranks));
  ScalingPoint point;
  point.strategy = way.name;
  point.ranks = ranks;
  point.outer = degree;
  point.ulysses = way.ulysses;
  point.tokens = p.tokens;
  point.coverage = work.outer == OuterKind::kSelected ? coverage : 0;
  point.sent_bytes = sent.bytes;
  point.attention = attention.forward.seconds() + attention.backward.seconds();
  point.exposed = attention.forward.exposed + attention.backward.exposed;
  point.layer = step.layer_forward + step.layer_backward;
  point.efficiency = (ideal.layer_forward + ideal.layer_backward) / point.layer;
  return point;
}

}  // namespace

std::vector<int> parse_scale(const std::string& text) {
  const size_t colon = text.find(':');
  int first = 0, last = 0;
  const auto read = [](const std::string& digits) {
    const bool number = !digits.empty() && digits.size() <= 7 &&
                        digits.find_first_not_of("0123456789") == std::string::npos;
    return number ? std::stoi(digits) : 0;
  };
  if (colon != std::string::npos) {
    first = read(text.substr(0, colon));
    last = read(text.substr(colon + 1));
  }
  if (first < 1 || last < first || last > kMostRanks) {
    throw ConfigError(fmt::format(
        "--scale: expected FIRST:LAST with 1 <= FIRST <= LAST <= {}, as in 8:4096, found {}",
        kMostRanks, text));
  }
  std::vector<int> ranks;
  for (int64_t count = first; count <= last; count *= 2) ranks.push_back(static_cast<int>(count));
  return ranks;
}

std::vector<ScalingPoint> simulate_scaling(const config::Job& job, const config::LatentShape& shape,
                                           const ClusterModel& cluster, const ScalingSpec& spec) {
  const parallel::TokenLayout layout = parallel::make_token_layout(token_layout_spec(job, shape));
  const parallel::AttentionSpec attention =
      attention_spec(job.attention(), job.training().steps() - 1);
  Problem p;
  p.tokens = static_cast<double>(layout.tokens());
  p.block_tokens = p.tokens / layout.blocks();
  p.heads = job.model().heads();
  p.head_dim = static_cast<double>(job.model().dim()) / p.heads;
  p.batch = job.training().micro_batch();
  p.element = static_cast<double>(size_of(compute_dtype(job)));
  p.density = spec.density;
  p.budget = spec.budget;
  p.gates = attention.coarse_gated() + attention.fine_gated();
  p.coarse = attention.method == parallel::MethodKind::kVsa &&
             attention.vsa.coarse != parallel::CoarseBranch::kNone;
  p.scores = attention.method != parallel::MethodKind::kDense &&
             attention.method != parallel::MethodKind::kSlidingTile;
  const int common = std::gcd(cluster.devices, static_cast<int>(job.model().heads()));

  std::vector<ScalingPoint> points;
  for (const bool weak : {false, true}) {
    for (const char* name : {"ring", "Ulysses", "hybrid", "selected"}) {
      for (const int ranks : spec.ranks) {
        Problem here = p;
        if (weak) here.tokens = p.tokens * ranks / spec.ranks.front();
        const std::string which = name;
        const int inside = std::gcd(common, ranks);
        const Way way = which == "ring"      ? Way{name, OuterKind::kRing, 1}
                        : which == "Ulysses" ? Way{name, OuterKind::kLocal, ranks}
                        : which == "hybrid"  ? Way{name, OuterKind::kRing, inside}
                                             : Way{name, OuterKind::kSelected, inside};
        auto point = simulate(job, here, cluster, way, ranks);
        if (!point) continue;
        point->weak = weak;
        points.push_back(std::move(*point));
      }
    }
  }
  return points;
}

std::string scaling_csv(const std::vector<ScalingPoint>& points) {
  std::string text =
      "scaling,strategy,ranks,outer,ulysses,tokens,coverage,sent_bytes,attention_s,exposed_s,"
      "layer_s,efficiency\n";
  for (const ScalingPoint& p : points) {
    text +=
        fmt::format("{},{},{},{},{},{:.0f},{:.4g},{:.6g},{:.6g},{:.6g},{:.6g},{:.4g}\n",
                    p.weak ? "weak" : "strong", p.strategy, p.ranks, p.outer, p.ulysses, p.tokens,
                    p.coverage, p.sent_bytes, p.attention, p.exposed, p.layer, p.efficiency);
  }
  return text;
}

std::string scaling_text(const std::vector<ScalingPoint>& points) {
  std::string text;
  for (const bool weak : {false, true}) {
    text += fmt::format("{} scaling of a block, forward and backward\n", weak ? "Weak" : "Strong");
    text += fmt::format("  {:<10}{:>7}{:>12}{:>14}{:>10}{:>10}{:>11}{:>11}{:>12}\n", "strategy",
                        "ranks", "o x u", "tokens", "coverage", "sent", "exposed", "time",
                        "efficiency");
    for (const ScalingPoint& p : points) {
      if (p.weak != weak) continue;
      text += fmt::format(
          "  {:<10}{:>7}{:>12}{:>14}{:>10}{:>10}{:>11}{:>11}{:>11.1f} %\n", p.strategy, p.ranks,
          fmt::format("{} x {}", p.outer, p.ulysses), grouped(static_cast<int64_t>(p.tokens)),
          p.coverage > 0 ? fmt::format("{:.2f}", p.coverage) : "-", megabytes_text(p.sent_bytes),
          seconds_text(p.exposed), seconds_text(p.layer), 100 * p.efficiency);
    }
    if (!weak) text += '\n';
  }
  return text;
}

}  // namespace sprocket::runtime

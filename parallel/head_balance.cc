#include "parallel/head_balance.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace sprocket::parallel {
namespace {

std::vector<int64_t> sums_of_runs(std::span<const int64_t> values, int64_t run) {
  std::vector<int64_t> sums(values.size() / run);
  for (size_t i = 0; i < values.size(); ++i) sums[i / run] += values[i];
  return sums;
}

// Runs of heads on ranks, equally many on each.
struct Placement {
  std::vector<std::vector<int>> held;  // [ranks]
  std::vector<int64_t> load;
};

Placement dearest_first(const std::vector<int64_t>& cost, int ranks) {
  std::vector<int> runs(cost.size());
  std::iota(runs.begin(), runs.end(), 0);
  std::stable_sort(runs.begin(), runs.end(), [&](int a, int b) { return cost[a] > cost[b]; });
  const size_t room = runs.size() / ranks;
  Placement placement{std::vector<std::vector<int>>(ranks), std::vector<int64_t>(ranks)};
  for (const int run : runs) {
    int least = -1;
    for (int rank = 0; rank < ranks; ++rank) {
      if (placement.held[rank].size() < room &&
          (least < 0 || placement.load[rank] < placement.load[least])) {
        least = rank;
      }
    }
    placement.held[least].push_back(run);
    placement.load[least] += cost[run];
  }
  return placement;
}

// Exchanges a run of the busiest rank for another rank's, such that the busier of the two has least
// to do. False where that would not relieve it.
bool exchange_one(const std::vector<int64_t>& cost, Placement& placement) {
  std::vector<int64_t>& load = placement.load;
  const size_t busiest = std::ranges::max_element(load) - load.begin();
  int64_t best = load[busiest];
  size_t partner = busiest;
  int *given = nullptr, *taken = nullptr;
  for (size_t rank = 0; rank < load.size(); ++rank) {
    for (int& own : placement.held[busiest]) {
      for (int& other : placement.held[rank]) {
        const int64_t moved = cost[own] - cost[other];
        const int64_t busier = std::max(load[busiest] - moved, load[rank] + moved);
        if (busier >= best) continue;
        best = busier;
        partner = rank;
        given = &own;
        taken = &other;
      }
    }
  }
  if (partner == busiest) return false;
  const int64_t moved = cost[*given] - cost[*taken];
  load[busiest] -= moved;
  load[partner] += moved;
  std::swap(*given, *taken);
  return true;
}

}  // namespace

std::vector<int> balanced_head_order(std::span<const int64_t> cost, int ranks, int unit) {
  const int heads = static_cast<int>(cost.size());
  SPROCKET_CHECK(ranks > 0 && unit > 0 && heads % (ranks * unit) == 0,
                 "{} heads in runs of {} over {} ranks", heads, unit, ranks);
  const std::vector<int64_t> run_cost = sums_of_runs(cost, unit);
  Placement placement = dearest_first(run_cost, ranks);
  while (exchange_one(run_cost, placement)) {
  }
  if (std::ranges::max(placement.load) >= std::ranges::max(sums_of_runs(cost, heads / ranks))) {
    return {};
  }
  std::vector<int> order;
  for (std::vector<int>& rank : placement.held) {
    std::sort(rank.begin(), rank.end());
    for (const int run : rank) {
      for (int i = 0; i < unit; ++i) order.push_back(run * unit + i);
    }
  }
  return order;
}

std::vector<int> heads_of_rank(std::span<const int> order, int rank, int ranks, int heads) {
  const int own = heads / ranks;
  std::vector<int> held(own);
  std::iota(held.begin(), held.end(), rank * own);
  if (!order.empty()) std::ranges::copy(order.subspan(rank * own, own), held.begin());
  return held;
}

std::vector<int> HeadBalancer::order(int layer, int heads, int unit) {
  Layer& last = layers_[layer];
  last.work.wait_host();
  if (std::ssize(last.own) * ulysses_ != heads) return {};
  std::vector<int64_t> cost(heads);
  auto next = last.all.begin();
  for (int rank = 0; rank < sequence_.size(); ++rank) {
    for (const int head : heads_of_rank(last.order, rank % ulysses_, ulysses_, heads)) {
      cost[head] += *next++;
    }
  }
  return balanced_head_order(cost, ulysses_, unit);
}

void HeadBalancer::give(int layer, std::span<const int> order, std::span<const int64_t> own_cost) {
  Layer& last = layers_[layer];
  last.work.wait_host();
  last.order.assign(order.begin(), order.end());
  last.own.assign(own_cost.begin(), own_cost.end());
  last.all.resize(last.own.size() * sequence_.size());
  last.work = sequence_.all_gather(
      comm::Buffer::of(std::span(last.own)), comm::Buffer::of(std::span(last.all)),
      std::vector<int64_t>(sequence_.size(), static_cast<int64_t>(last.own.size())));
}

void HeadBalancer::settle() {
  for (auto& [layer, last] : layers_) last.work.wait_host();
}

}  // namespace sprocket::parallel

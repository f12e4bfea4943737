#include "runtime/profile/blame.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace sprocket::profile {
namespace {

constexpr double kLeastShare = 0.02;
constexpr double kExplained = 0.5;  // of the longest wait, by a rank's own work
constexpr double kLinkOverWork = 1.5;
constexpr double kLayerShare = 0.5;  // of the largest layer's excess, to be named with it

double as_double(int64_t value) { return static_cast<double>(value); }

// One rank against the mean of the others.
class Against {
 public:
  Against(const WindowSums& sums, size_t rank) : sums_(sums), rank_(rank) {}

  struct Found {
    double own = 0, others = 0;
    double excess() const { return own - others; }
    double factor() const { return others > 0 ? own / others : 0; }
  };
  template <class Of>
  Found compare(Of&& of) const {
    Found found;
    for (size_t r = 0; r < sums_.ranks.size(); ++r) {
      const double value = of(sums_.ranks[r]);
      if (r == rank_) {
        found.own = value;
      } else {
        found.others += value / static_cast<double>(sums_.ranks.size() - 1);
      }
    }
    return found;
  }
  Found layer(size_t layer) const {
    return compare([layer](const RankSums& rank) {
      return layer < rank.layers.size() ? as_double(rank.layers[layer].compute_ns) : 0.0;
    });
  }

 private:
  const WindowSums& sums_;
  const size_t rank_;
};

void name_kernel(const WindowSums& sums, size_t rank, const Against& against, Blame& blame) {
  double most = 0;
  for (const auto& [key, own] : sums.ranks[rank].kernels) {
    const auto found = against.compare([&key = key](const RankSums& other) {
      const auto kernel = other.kernels.find(key);
      return kernel == other.kernels.end() ? 0.0 : as_double(kernel->second.ns);
    });
    if (found.excess() <= most) continue;
    most = found.excess();
    blame.kernel = key.first;
  }
}

// The layers around the one with the largest excess that have much of it too; the kernel where the
// layers have less than half of the rank's excess.
void name_layers(const WindowSums& sums, size_t rank, const Against& against, Blame& blame) {
  std::vector<Against::Found> layers(sums.ranks[rank].layers.size());
  double all = 0;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    layers[layer] = against.layer(layer);
    all += layers[layer].excess();
  }
  const double rank_excess =
      against.compare([](const RankSums& r) { return as_double(r.parts.compute_ns); }).excess();
  name_kernel(sums, rank, against, blame);
  if (layers.empty() || all < rank_excess / 2) return;
  const auto worst =
      std::max_element(layers.begin(), layers.end(),
                       [](const auto& a, const auto& b) { return a.excess() < b.excess(); });
  const double least = kLayerShare * worst->excess();
  auto first = worst, last = worst;
  while (first != layers.begin() && std::prev(first)->excess() >= least) --first;
  while (std::next(last) != layers.end() && std::next(last)->excess() >= least) ++last;
  blame.first_layer = static_cast<int>(first - layers.begin());
  blame.last_layer = static_cast<int>(last - layers.begin());
  Against::Found sum;
  double density = 0, others_density = 0;
  for (int layer = blame.first_layer; layer <= blame.last_layer; ++layer) {
    sum.own += layers[layer].own;
    sum.others += layers[layer].others;
    const auto found = against.compare([layer](const RankSums& r) {
      return static_cast<size_t>(layer) < r.layers.size() ? r.layers[layer].density.mean() : 0.0;
    });
    density += found.own;
    others_density += found.others;
  }
  blame.factor = sum.factor();
  blame.excess_ms = 1e-6 * sum.excess() / as_double(sums.steps());
  if (others_density > 0) blame.density_factor = density / others_density;
}

Against::Found own_work(const Against& against) {
  return against.compare([](const RankSums& r) {
    const StepParts& parts = r.parts;
    return as_double(parts.compute_ns + parts.data_wait_ns + parts.copies_ns + parts.other_ns);
  });
}

double waited_for(const RankSums& rank) { return as_double(rank.held_up_ns); }

// What the way to the rank takes: its messages came last by so much more than it was late, or than
// its own work can have made it late.
double link_ns(const WindowSums& sums, const Against& against) {
  const auto excess = [&](auto&& of) {
    return against.compare([&](const RankSums& r) { return as_double(of(r)); }).excess();
  };
  const double others = static_cast<double>(sums.ranks.size() - 1);
  const double late = excess([](const RankSums& r) { return r.late_ns; }) / others;
  const double unexplained = std::max(0.0, late - std::max(0.0, own_work(against).excess()));
  return std::min(excess([](const RankSums& r) { return r.last_ns; }),
                  excess([](const RankSums& r) { return r.link_ns; }) + unexplained);
}

struct Suspect {
  size_t rank = 0;
  double wait = 0;  // of all ranks for it, beyond what others are waited for
};

// The rank that works so much more than the others that this explains the longest wait, better than
// a slow link does; else the one that is waited for longest. Who waits for a rank that works is
// late for the next one: such a chain of waits has the length of the first one's work.
Suspect find_suspect(const WindowSums& sums) {
  Suspect longest, busiest;
  double most_work = 0, all_waits = 0;
  for (size_t rank = 0; rank < sums.ranks.size(); ++rank) {
    const Against against(sums, rank);
    const Against::Found wait = against.compare(waited_for);
    const double work = own_work(against).excess();
    all_waits += wait.own;
    if (wait.excess() > longest.wait) longest = {rank, wait.excess()};
    if (work > most_work) {
      busiest = {rank, wait.excess()};
      most_work = work;
    }
  }
  const double explained = std::min(as_double(std::ssize(sums.ranks) - 1) * most_work, all_waits);
  const bool link = link_ns(sums, Against(sums, longest.rank)) > kLinkOverWork * most_work;
  if (link || explained < kExplained * longest.wait) return longest;
  return {busiest.rank, std::max(busiest.wait, explained)};
}

}  // namespace

std::optional<Blame> find_blame(const WindowSums& sums, std::span<const int> ranks) {
  if (sums.ranks.size() < 2) return std::nullopt;
  double wall = 0, exposed = 0;
  for (const RankSums& rank : sums.ranks) {
    wall += as_double(rank.parts.wall_ns);
    exposed += as_double(rank.parts.exposed_ns);
  }
  const Suspect suspect = find_suspect(sums);
  const Against against(sums, suspect.rank);
  Blame blame;
  blame.rank = ranks[suspect.rank];
  blame.waited_share = std::min(suspect.wait, exposed) / wall;
  if (blame.waited_share < kLeastShare) return std::nullopt;

  const auto part = [&](int64_t StepParts::*member) {
    return against.compare([member](const RankSums& r) { return as_double(r.parts.*member); });
  };
  const std::pair<Cause, Against::Found> causes[] = {
      {Cause::kCompute, part(&StepParts::compute_ns)},
      {Cause::kDataWait, part(&StepParts::data_wait_ns)},
      {Cause::kCopies, part(&StepParts::copies_ns)},
      {Cause::kOther, part(&StepParts::other_ns)},
      {Cause::kLink, {link_ns(sums, against), 0}}};
  const auto& largest = *std::max_element(
      std::begin(causes), std::end(causes),
      [](const auto& a, const auto& b) { return a.second.excess() < b.second.excess(); });
  if (largest.second.excess() <= 0) return blame;
  blame.cause = largest.first;
  blame.excess_ms = 1e-6 * largest.second.excess() / as_double(sums.steps());
  blame.factor = largest.second.factor();
  if (blame.cause == Cause::kCompute) name_layers(sums, suspect.rank, against, blame);
  return blame;
}

}  // namespace sprocket::profile

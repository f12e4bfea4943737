#include "tests/cuda_simulator/grid.h"

#include <algorithm>

#include "tests/cuda_simulator/error.h"

namespace sprocket::cuda_simulator {
namespace {

constexpr uint64_t kLongRun = 100000;
// Rounds in which every warp polls and nothing happens, until this is called a deadlock.
constexpr int kPatience = 200;
// The same in instructions, for warps that spin on plain loads, which look like work.
constexpr uint64_t kLongPatience = 30000000;

Extent clusters_of(const LaunchShape& shape) {
  return {shape.grid.x / shape.cluster.x, shape.grid.y / shape.cluster.y,
          shape.grid.z / shape.cluster.z};
}

}  // namespace

Cluster::Cluster(Grid& grid, Extent first, Extent index) : index_(index) {
  const Extent shape = grid.shape().cluster;
  for (unsigned rank = 0; rank < shape.count(); ++rank) {
    const Extent at = shape.index(rank);
    ctas_.push_back(std::make_unique<Cta>(grid, *this, rank,
                                          Extent{first.x + at.x, first.y + at.y, first.z + at.z}));
  }
}

uint64_t Cluster::arrive(unsigned threads) {
  const uint64_t phase = phase_;
  arrived_ += threads;
  ctas_.front()->grid().event();
  threads_changed();
  return phase;
}

void Cluster::threads_changed() {
  unsigned live = 0;
  for (const auto& cta : ctas_) live += cta->live_threads();
  if (arrived_ == 0 || arrived_ < live) return;
  arrived_ = 0;
  ++phase_;
}

bool Cluster::done() const {
  return std::all_of(ctas_.begin(), ctas_.end(), [](const auto& cta) { return cta->done(); });
}

Grid::Grid(const Program& program, const LaunchShape& shape, std::vector<std::byte> parameters,
           DeviceMemory& memory, const Device& device, const Schedule& schedule)
    : program_(program),
      shape_(shape),
      parameters_(std::move(parameters)),
      memory_(memory),
      device_(device),
      schedule_(schedule),
      random_(schedule.seed) {
  const uint32_t align = std::max(program.dynamic_shared_align, 16u);
  shared_bytes_ =
      (program.static_shared_bytes + align - 1) / align * align + shape.dynamic_shared_bytes;
  clusters_ = clusters_of(shape).count();
}

void Grid::admit() {
  const Extent index = clusters_of(shape_).index(next_cluster_++);
  const Extent first{index.x * shape_.cluster.x, index.y * shape_.cluster.y,
                     index.z * shape_.cluster.z};
  resident_.push_back(std::make_unique<Cluster>(*this, first, index));
}

void Grid::turn(Warp& warp, bool& budget_used, bool& yielded) {
  const uint64_t budget = schedule_.seed == 0 ? kLongRun : 1 + random_() % 64;
  try {
    const Warp::Outcome outcome = warp.run(budget);
    budget_used |= outcome == Warp::Outcome::kBudget;
    yielded |= outcome == Warp::Outcome::kYielded;
  } catch (const DeviceError& error) {
    const Program::Place& place = program_.places[program_.code[warp.pc()].statement];
    std::string where =
        fmt::format("kernel {}, PTX line {}: {}", program_.name, place.line, place.text);
    const Extent cta = warp.cta().index();
    where += fmt::format("\n  block ({}, {}, {})", cta.x, cta.y, cta.z);
    if (const auto* lane = dynamic_cast<const LaneError*>(&error)) {
      const Extent thread = shape_.block.index(warp.index() * kWarpSize + lane->lane());
      where += fmt::format(", thread ({}, {}, {})", thread.x, thread.y, thread.z);
    }
    throw DeviceError(error.fault(), fmt::format("{}\n  {}", error.what(), where));
  }
}

void Grid::run_one(size_t index) {
  const auto at = deferred_.begin() + static_cast<std::ptrdiff_t>(index);
  const std::function<void()> action = std::move(*at);
  deferred_.erase(at);
  ++events_;
  try {
    action();
  } catch (const DeviceError& error) {
    throw DeviceError(error.fault(), fmt::format("{}\n  in asynchronous work of kernel {}",
                                                 error.what(), program_.name));
  }
}

// As late as possible: the oldest when nothing else happens, and all before a block leaves. With a
// seed some happen earlier, in any order.
void Grid::run_deferred(bool leaves, bool idle) {
  if (leaves) {
    while (!deferred_.empty()) run_one(0);
  } else if (schedule_.seed == 0) {
    if (idle && !deferred_.empty()) run_one(0);
  } else {
    for (size_t i = deferred_.size(); i > 0; --i) {
      const size_t index = random_() % deferred_.size();
      if (random_() % 4 == 0 || (idle && i == 1)) run_one(index);
    }
  }
}

void Grid::deadlock() const {
  std::string message =
      fmt::format("deadlock in kernel {}: nothing that runs can go on", program_.name);
  int shown = 0;
  for (const auto& cluster : resident_) {
    for (const auto& cta : cluster->ctas()) {
      for (const Warp& warp : cta->warps()) {
        if (warp.live() == 0 || ++shown > 16) continue;
        const Extent at = cta->index();
        message += fmt::format("\n block ({}, {}, {}){}", at.x, at.y, at.z, warp.describe());
      }
    }
  }
  throw DeviceError(Fault::kDeadlock, message);
}

// One cluster at a time, and further ones when those that run wait for them.
void Grid::run() {
  int idle_rounds = 0;
  while (next_cluster_ < clusters_ || !resident_.empty()) {
    if (resident_.empty()) admit();
    const uint64_t events = events_;
    bool budget_used = false, yielded = false;
    std::vector<Warp*> order;
    for (const auto& cluster : resident_) {
      for (const auto& cta : cluster->ctas()) {
        for (Warp& warp : cta->warps()) {
          if (warp.live()) order.push_back(&warp);
        }
      }
    }
    if (schedule_.seed != 0) std::shuffle(order.begin(), order.end(), random_);
    for (Warp* warp : order) {
      if (warp->live()) turn(*warp, budget_used, yielded);
    }
    const auto done = [](const auto& cluster) { return cluster->done(); };
    const bool leaves = std::any_of(resident_.begin(), resident_.end(), done);
    run_deferred(leaves, events_ == events);
    resident_.erase(std::remove_if(resident_.begin(), resident_.end(), done), resident_.end());
    if (events_ != events) {
      idle_rounds = 0;
      busy_until_ = instructions_;
      continue;
    }
    ++idle_rounds;
    const bool stuck = budget_used ? instructions_ - busy_until_ > kLongPatience
                                   : idle_rounds >= (yielded ? kPatience : 1);
    if (next_cluster_ < clusters_ && (stuck || idle_rounds > 8)) {
      admit();
    } else if (stuck) {
      deadlock();
    }
  }
}

}  // namespace sprocket::cuda_simulator

// A launched grid: CTAs, the schedule of their warps, and what CTAs of a cluster share.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "tests/cuda_simulator/memory.h"
#include "tests/cuda_simulator/program.h"
#include "tests/cuda_simulator/warp.h"

namespace sprocket::cuda_simulator {

struct Extent {
  unsigned x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t{x} * y * z; }
  Extent index(uint64_t i) const {
    return {static_cast<unsigned>(i % x), static_cast<unsigned>(i / x % y),
            static_cast<unsigned>(i / x / y)};
  }
};

struct LaunchShape {
  Extent grid, block, cluster;
  uint32_t dynamic_shared_bytes = 0;
};

// How warps take turns. Seed 0: each runs until it waits or arrives at an mbarrier. Other seeds: in
// random order, and for random numbers of instructions.
struct Schedule {
  uint64_t seed = 0;
};

// What the device is.
struct Device {
  int capability = 80;  // 10 * major + minor
  int multiprocessors = 108;
  unsigned shared_bytes_per_block = 48 << 10;
  unsigned shared_bytes_per_block_optin = 163 << 10;
  unsigned shared_bytes_per_multiprocessor = 164 << 10;
};

class Grid;
class Cluster;

class Cta {
 public:
  Cta(Grid& grid, Cluster& cluster, unsigned rank, Extent index);

  Grid& grid() { return grid_; }
  Cluster& cluster() { return cluster_; }
  unsigned rank() const { return rank_; }
  Extent index() const { return index_; }
  std::vector<Warp>& warps() { return warps_; }
  std::byte* shared() { return shared_.data(); }
  uint32_t shared_bytes() const { return static_cast<uint32_t>(shared_.size()); }
  uint64_t special(Special which, unsigned thread) const;

  // Barrier `id`: `lanes` of a warp arrive, counting for `count` threads of `expected` (0: all live
  // threads of the CTA). Returns the phase to wait for.
  uint64_t arrive(unsigned id, unsigned count, unsigned expected);
  bool passed(unsigned id, uint64_t phase) const { return barriers_[id].phase > phase; }
  // Lanes have exited: barriers of all threads may be complete.
  void warp_changed();
  unsigned live_threads() const;
  bool done() const { return live_threads() == 0; }

  // For bar.red: the votes of the phase at hand, and the result of the former one.
  struct Reduction {
    unsigned votes = 0, ballots = 0;
  };
  void vote(unsigned id, unsigned yes, unsigned of);
  Reduction result(unsigned id) const { return barriers_[id].result; }

 private:
  struct Barrier {
    uint64_t phase = 0;
    unsigned arrived = 0;
    unsigned expected = 0;
    Reduction pending, result;
  };
  void complete(Barrier& barrier);

  Grid& grid_;
  Cluster& cluster_;
  unsigned rank_;
  Extent index_;
  std::vector<std::byte> shared_;
  std::vector<Warp> warps_;
  std::array<Barrier, 16> barriers_;
};

class Cluster {
 public:
  Cluster(Grid& grid, Extent first, Extent index);
  Cta& cta(unsigned rank) { return *ctas_[rank]; }
  unsigned size() const { return static_cast<unsigned>(ctas_.size()); }
  Extent index() const { return index_; }
  std::vector<std::unique_ptr<Cta>>& ctas() { return ctas_; }
  bool done() const;

  // barrier.cluster: threads arrive, and get the phase to wait for. Threads that exit count no
  // more.
  uint64_t arrive(unsigned threads);
  bool passed(uint64_t phase) const { return phase_ > phase; }
  void threads_changed();

 private:
  uint64_t phase_ = 0;
  unsigned arrived_ = 0;
  Extent index_;
  std::vector<std::unique_ptr<Cta>> ctas_;
};

class Grid {
 public:
  Grid(const Program& program, const LaunchShape& shape, std::vector<std::byte> parameters,
       DeviceMemory& memory, const Device& device, const Schedule& schedule);

  // Throws DeviceError with a message that says where.
  void run();

  const Program& program() const { return program_; }
  const LaunchShape& shape() const { return shape_; }
  const Device& device() const { return device_; }
  DeviceMemory& memory() { return memory_; }
  std::byte* parameters() { return parameters_.data(); }
  uint32_t parameter_bytes() const { return static_cast<uint32_t>(parameters_.size()); }
  uint32_t shared_bytes() const { return shared_bytes_; }

  // Something has changed that others may wait for.
  void event() { ++events_; }
  // What happens by itself, some time later: at the latest when all warps wait for something and
  // nothing else that was deferred is left to happen.
  void defer(std::function<void()> action) { deferred_.push_back(std::move(action)); }
  // Whether work that may be done now or later is done later: by the schedule.
  bool prefers_late() { return schedule_.seed == 0 || (random_() & 1) != 0; }
  void count(uint64_t instructions) { instructions_ += instructions; }
  uint64_t instructions() const { return instructions_; }

 private:
  void admit();
  void turn(Warp& warp, bool& budget_used, bool& yielded);
  void run_deferred(bool leaves, bool idle);
  void run_one(size_t index);
  [[noreturn]] void deadlock() const;

  const Program& program_;
  LaunchShape shape_;
  std::vector<std::byte> parameters_;
  DeviceMemory& memory_;
  const Device& device_;
  Schedule schedule_;
  std::mt19937_64 random_;
  uint32_t shared_bytes_ = 0;
  uint64_t next_cluster_ = 0;
  uint64_t clusters_ = 0;
  std::deque<std::unique_ptr<Cluster>> resident_;
  std::deque<std::function<void()>> deferred_;
  uint64_t events_ = 0;
  uint64_t instructions_ = 0;
  uint64_t busy_until_ = 0;  // the instructions at the last event
};

}  // namespace sprocket::cuda_simulator

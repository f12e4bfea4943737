// Ranks that do what a test tells them to and record it: a window whose sums are known in closed
// form. Every rank has its own clock.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "runtime/profile/window_sums.h"

namespace sprocket::testing {

class SyntheticWindow {
 public:
  // clocks: by rank, the nanoseconds that its clock is ahead; empty: none is.
  explicit SyntheticWindow(int ranks, std::vector<int64_t> clocks = {});

  void compute(int rank, int layer, int64_t ns, const std::string& kernel = "attention.local");
  void copy(int rank, int64_t ns) { activity(rank, Activity::kCopy, -1, ns, "pack"); }
  void load(int rank, int64_t ns) { activity(rank, Activity::kDataWait, -1, ns, "data.load"); }
  void idle(int rank, int64_t ns) { now_[rank] += ns; }
  void density(int rank, int layer, double density);

  // A collective of all ranks: it ends `transfer_ns` after the last one came, or where
  // `slow_rank` is one, `slow_ns` later, its messages alone being missing then. `buffered`: for
  // itself it ends without them.
  void collective(int64_t transfer_ns, int slow_rank = -1, int64_t slow_ns = 0,
                  bool buffered = false);
  // As collective, in flight while every rank computes for `compute_ns`.
  void behind_compute(int64_t compute_ns, int64_t transfer_ns, int slow_rank, int64_t slow_ns);
  // Every rank sends to the next one and receives from the one before; nobody waits for others.
  void shift(int64_t transfer_ns);

  void end_step();
  const profile::WindowSums& sums() const { return sums_; }
  // Writes the steps that have ended as every rank's recorder would.
  void write(const std::string& folder) const;
  // 0, 1, 2, …
  const std::vector<int>& ranks() const { return ranks_; }

 private:
  void activity(int rank, Activity activity, int layer, int64_t ns, const std::string& name);
  void operation(int rank, comm::OpKind op, int64_t end, int last_peer, int64_t alone_ns);
  void begin_step();

  std::vector<int64_t> clocks_, now_;
  std::vector<int> ranks_;
  std::deque<profile::events::Header> headers_;
  std::deque<profile::NameTable> names_;
  std::vector<profile::RankStep> steps_;
  std::vector<std::string> hosts_;
  int64_t step_ = 0, sequence_ = 0;
  std::vector<std::vector<profile::RecordedStep>> recorded_;  // by rank
  profile::WindowSums sums_;
};

}  // namespace sprocket::testing

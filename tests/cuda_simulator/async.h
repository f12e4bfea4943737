// Copies that a thread has started and not waited for.
//
// Nothing is visible before it must be: sources are read and results are written as late as the
// program allows, and what a copy is going to overwrite is filled with 0xff at once. A missing
// wait, or a buffer that is used again too early, then shows in the results.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>

namespace sprocket::cuda_simulator {

// Groups of one thread, of cp.async or of cp.async.bulk.
class CopyGroups {
 public:
  void add(std::function<void()> copy) { open_.push_back(std::move(copy)); }
  void commit() {
    groups_.push_back(std::move(open_));
    open_.clear();
  }
  // Completes groups until at most `pending` are left.
  void wait(uint64_t pending) {
    while (groups_.size() > pending) {
      run(groups_.front());
      groups_.pop_front();
    }
  }
  // Completes everything, committed or not.
  void wait_all() {
    wait(0);
    run(open_);
    open_.clear();
  }
  bool empty() const { return open_.empty() && groups_.empty(); }

 private:
  using Group = std::deque<std::function<void()>>;
  static void run(const Group& group) {
    for (const auto& copy : group) copy();
  }
  Group open_;
  std::deque<Group> groups_;
};

}  // namespace sprocket::cuda_simulator

// The state behind a Communicator, shared with its unfinished operations.
#pragma once

#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "parallel/comm/backend.h"

namespace sprocket::comm {

// Unfinished operations of all communicators that were split from one another. Some operations need
// the host to go on (a reduction sends its second half when the first has arrived), so whoever
// waits for one advances them all: else two ranks that wait in different orders would wait for each
// other.
class Unfinished {
 public:
  void add(Work::Impl* work) { works_.push_back(work); }
  void remove(Work::Impl* work) { std::erase(works_, work); }
  void advance(const Work::Impl* except);

 private:
  std::vector<Work::Impl*> works_;
};

class Group {
 public:
  Group(std::unique_ptr<Backend> backend, std::string name, CommunicatorOptions options,
        std::shared_ptr<Unfinished> unfinished);
  ~Group();

  int rank() const { return backend_->rank(); }
  int size() const { return backend_->size(); }

  OpRecord new_record(OpKind op, DType dtype) const;
  // Zeros, to be told what the next operation sends to whom.
  std::span<int64_t> next_sent_to();
  BackendError timed_out(const Operation& operation) const;
  // Throws BackendError when the operation fails or the time-out passes.
  void await(Operation& operation, OpKind op, const Work::Impl* self);
  // Aborts the group and returns what to throw.
  CommError failure(const Call& call, const std::string& what, int peer) noexcept;
  // Takes an operation that a device stream waits for and the host does not.
  void hand_over(std::unique_ptr<Work::Impl> work);
  void sweep_handed_over();

  std::unique_ptr<Backend> backend_;
  const std::string name_;
  const CommunicatorOptions options_;
  const std::shared_ptr<Unfinished> unfinished_;
  Recorder recorder_;
  int64_t next_sequence_ = 0;
  std::vector<int64_t> sent_to_;  // of the last operation with a payload

 private:
  std::vector<std::unique_ptr<Work::Impl>> handed_over_;
};

class Work::Impl {
 public:
  Impl(std::shared_ptr<Group> group, const Call& call, uint64_t ticket, Pending operation);
  ~Impl();
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  // True once settled: completed or failed.
  bool advance() noexcept;
  void wait_host();
  void wait(StreamView stream);
  // A device stream was ordered after the operation, which is not known to have completed.
  bool left_to_the_device() const { return ordered_until_ && operation_; }
  void settle_before_destruction() noexcept;

 private:
  friend class Group;
  friend class Work;
  void complete() noexcept;
  void fail(const std::string& what, int peer) noexcept;

  std::shared_ptr<Group> keep_alive_;  // empty once handed over to the group itself
  Group* group_;
  Call call_;
  uint64_t ticket_;
  Pending operation_;  // empty once settled
  std::exception_ptr error_;
  // When an operation that a device stream waits for, and maybe no host, counts as hung.
  std::optional<Operation::Clock::time_point> ordered_until_;
  int uncaught_at_birth_;
};

}  // namespace sprocket::comm

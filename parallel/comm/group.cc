#include "parallel/comm/group.h"

#include <algorithm>
#include <utility>

#include "parallel/comm/time_out.h"

namespace sprocket::comm {

void Unfinished::advance(const Work::Impl* except) {
  std::erase_if(works_, [&](Work::Impl* work) { return work != except && work->advance(); });
}

Group::Group(std::unique_ptr<Backend> backend, std::string name, CommunicatorOptions options,
             std::shared_ptr<Unfinished> unfinished)
    : backend_(std::move(backend)),
      name_(std::move(name)),
      options_(options),
      unfinished_(std::move(unfinished)),
      recorder_(options.recorded_operations, size()),
      sent_to_(size()) {}

Group::~Group() { handed_over_.clear(); }

OpRecord Group::new_record(OpKind op, DType dtype) const {
  OpRecord record;
  record.sequence = next_sequence_;
  record.op = op;
  record.dtype = dtype;
  if (options_.timeline) record.position = options_.timeline->position;
  record.enqueue_ns = monotonic_ns();
  return record;
}

std::span<int64_t> Group::next_sent_to() {
  std::fill(sent_to_.begin(), sent_to_.end(), 0);
  return sent_to_;
}

BackendError Group::timed_out(const Operation& operation) const {
  const auto missing = operation.missing();
  return BackendError(
      fmt::format("{} {} ms waiting for {}", kTimedOut, options_.timeout.count(), missing.what),
      missing.peer);
}

void Group::await(Operation& operation, OpKind op, const Work::Impl* self) {
  const Timeline::Scope scope(options_.timeline, Activity::kCommunicationWait, name_of(op));
  const auto deadline = Operation::Clock::now() + options_.timeout;
  while (!operation.poll()) {
    if (Operation::Clock::now() >= deadline) throw timed_out(operation);
    unfinished_->advance(self);
    operation.pause(deadline);
  }
}

CommError Group::failure(const Call& call, const std::string& what, int peer) noexcept {
  CommError error({name_, name_of(call.op), call.sequence, rank(), size(), peer}, what);
  backend_->abort(error.what());
  return error;
}

void Group::hand_over(std::unique_ptr<Work::Impl> work) {
  const auto keep_alive = std::move(work->keep_alive_);
  handed_over_.push_back(std::move(work));
}

void Group::sweep_handed_over() {
  std::erase_if(handed_over_, [](const auto& work) { return work->advance(); });
}

Work::Impl::Impl(std::shared_ptr<Group> group, const Call& call, uint64_t ticket, Pending operation)
    : keep_alive_(std::move(group)),
      group_(keep_alive_.get()),
      call_(call),
      ticket_(ticket),
      operation_(std::move(operation)),
      uncaught_at_birth_(std::uncaught_exceptions()) {
  group_->unfinished_->add(this);
}

Work::Impl::~Impl() {
  settle_before_destruction();
  group_->unfinished_->remove(this);
}

void Work::Impl::complete() noexcept {
  const std::optional<OperationSpan> span = operation_->span();
  const LastPeer last = operation_->last_peer();
  operation_.reset();
  if (span) {
    group_->recorder_.complete(ticket_, *span, monotonic_ns());
  } else {
    group_->recorder_.complete(ticket_, monotonic_ns(), OpState::kCompleted, last);
  }
}

void Work::Impl::fail(const std::string& what, int peer) noexcept {
  // The group first: a backend may need its abort before it can withdraw the operation.
  error_ = std::make_exception_ptr(group_->failure(call_, what, peer));
  operation_.reset();
  group_->recorder_.complete(ticket_, monotonic_ns(), OpState::kFailed);
}

bool Work::Impl::advance() noexcept {
  if (!operation_) return true;
  try {
    if (!operation_->poll()) {
      if (!ordered_until_ || Operation::Clock::now() < *ordered_until_) return false;
      throw group_->timed_out(*operation_);
    }
    complete();
  } catch (const BackendError& error) {
    fail(error.what(), error.peer());
  } catch (const std::exception& error) {
    fail(error.what(), -1);
  }
  return true;
}

void Work::Impl::wait_host() {
  if (!advance()) {
    try {
      group_->await(*operation_, call_.op, this);
      complete();
    } catch (const BackendError& error) {
      fail(error.what(), error.peer());
    }
  }
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Work::Impl::wait(StreamView stream) {
  bool ordered = false;
  try {
    if (operation_ && !stream.is_host()) {
      // For what the stream waits, on whose device the timeline measures.
      const Timeline::Scope scope(group_->options_.timeline, Activity::kCommunicationWait,
                                  name_of(call_.op));
      ordered = operation_->order(stream);
    }
  } catch (const BackendError& error) {
    fail(error.what(), error.peer());
  }
  if (ordered) {
    ordered_until_ = Operation::Clock::now() + group_->options_.timeout;
  } else {
    wait_host();
  }
}

void Work::Impl::settle_before_destruction() noexcept {
  if (!operation_) return;
  if (std::uncaught_exceptions() > uncaught_at_birth_) {
    fail("dropped unfinished while an exception unwound", -1);
    return;
  }
  try {
    wait_host();
  } catch (const std::exception&) {
    // The failure has aborted the group and is in the recorder; the next operation throws it.
  }
}

Work::Work() = default;
Work::Work(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Work::Work(Work&&) noexcept = default;

Work& Work::operator=(Work&& other) noexcept {
  if (this != &other) {
    Work former(std::move(*this));
    impl_ = std::move(other.impl_);
  }
  return *this;
}

Work::~Work() {
  if (impl_ && impl_->left_to_the_device()) impl_->group_->hand_over(std::move(impl_));
}

bool Work::done() { return !impl_ || impl_->advance(); }

void Work::wait(StreamView stream) {
  if (impl_) impl_->wait(stream);
}

void Work::wait_host() {
  if (impl_) impl_->wait_host();
}

}  // namespace sprocket::comm

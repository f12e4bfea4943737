#include "tests/profile/slow_rank.h"

#include <time.h>

#include <thread>
#include <utility>
#include <vector>

namespace sprocket::testing {
namespace {

using comm::Buffer;
using comm::Call;
using comm::Pending;
using comm::Segment;

int64_t thread_time_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
}

// Starts another one when its time has come.
class DelayedOperation : public comm::Operation {
 public:
  DelayedOperation(std::chrono::nanoseconds delay, std::function<Pending()> start)
      : due_(Clock::now() + delay), start_(std::move(start)) {}
  // What the peers wait for is sent in any case.
  ~DelayedOperation() override {
    if (start_) start();
  }

  bool poll() override {
    if (start_ && Clock::now() < due_) return false;
    if (start_) start();
    return !inner_ || inner_->poll();
  }
  void pause(Clock::time_point until) override {
    if (inner_) {
      inner_->pause(until);
    } else {
      std::this_thread::yield();
    }
  }
  Missing missing() const override { return inner_ ? inner_->missing() : Missing{}; }
  comm::LastPeer last_peer() const override {
    return inner_ ? inner_->last_peer() : comm::LastPeer{};
  }

 private:
  void start() { inner_ = std::exchange(start_, nullptr)(); }

  const Clock::time_point due_;
  std::function<Pending()> start_;
  Pending inner_;
};

class SlowBackend : public comm::Backend {
 public:
  SlowBackend(std::unique_ptr<comm::Backend> inner, Slowness slowness)
      : inner_(std::move(inner)), slowness_(std::move(slowness)) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::vector<int>& world_ranks() const override { return inner_->world_ranks(); }
  // Asked before every operation, when its time does not run yet.
  std::string refusal(comm::OpKind op, DType dtype, StreamView stream) const override {
    if (slowness_.before_operation) slowness_.before_operation();
    return inner_->refusal(op, dtype, stream);
  }
  Pending all_reduce(const Call& call, Buffer inout, comm::ReduceOp op) override {
    return delayed([=, this] { return inner_->all_reduce(call, inout, op); });
  }
  Pending all_gather(const Call& call, Buffer in, Buffer out,
                     std::span<const int64_t> counts) override {
    return delayed(
        [=, this, counts = copy(counts)] { return inner_->all_gather(call, in, out, counts); });
  }
  Pending reduce_scatter(const Call& call, Buffer in, Buffer out,
                         std::span<const int64_t> counts) override {
    return delayed(
        [=, this, counts = copy(counts)] { return inner_->reduce_scatter(call, in, out, counts); });
  }
  Pending all_to_all(const Call& call, Buffer in, Buffer out) override {
    return delayed([=, this] { return inner_->all_to_all(call, in, out); });
  }
  Pending broadcast(const Call& call, Buffer inout, int root) override {
    return delayed([=, this] { return inner_->broadcast(call, inout, root); });
  }
  Pending exchange(const Call& call, Buffer send, std::span<const Segment> send_segments,
                   Buffer receive, std::span<const Segment> receive_segments) override {
    return delayed([=, this, sends = copy(send_segments), receives = copy(receive_segments)] {
      return inner_->exchange(call, send, sends, receive, receives);
    });
  }
  Pending barrier(const Call& call) override {
    return delayed([=, this] { return inner_->barrier(call); });
  }
  std::unique_ptr<comm::Backend> split(const Call& call, int colour, int key,
                                       const std::string& name, const comm::Waiter& wait) override {
    return make_slow_backend(inner_->split(call, colour, key, name, wait), slowness_);
  }
  void check() override { inner_->check(); }
  void abort(const std::string& reason) noexcept override { inner_->abort(reason); }

 private:
  template <class T>
  static std::vector<T> copy(std::span<const T> values) {
    return {values.begin(), values.end()};
  }
  Pending delayed(std::function<Pending()> start) {
    if (slowness_.link_delay.count() == 0 || size() == 1) return start();
    return std::make_unique<DelayedOperation>(slowness_.link_delay, std::move(start));
  }

  const std::unique_ptr<comm::Backend> inner_;
  const Slowness slowness_;
};

}  // namespace

std::unique_ptr<comm::Backend> make_slow_backend(std::unique_ptr<comm::Backend> inner,
                                                 Slowness slowness) {
  return std::make_unique<SlowBackend>(std::move(inner), std::move(slowness));
}

void compute_for(Timeline& timeline, const char* name, std::chrono::nanoseconds length) {
  const Timeline::Scope scope(&timeline, Activity::kCompute, name);
  const int64_t end = thread_time_ns() + length.count();
  while (thread_time_ns() < end) {
  }
}

}  // namespace sprocket::testing

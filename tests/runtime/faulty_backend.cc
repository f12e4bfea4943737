#include "tests/runtime/faulty_backend.h"

#include <utility>

namespace sprocket::testing {
namespace {

using comm::Buffer;
using comm::Call;
using comm::Pending;
using comm::Segment;

class FaultyOperation : public comm::Operation {
 public:
  FaultyOperation(Pending inner, std::function<void()> damage)
      : inner_(std::move(inner)), damage_(std::move(damage)) {}

  bool poll() override {
    if (inner_ && !inner_->poll()) return false;
    damage_();
    return true;
  }
  void pause(Clock::time_point until) override {
    if (inner_) inner_->pause(until);
  }
  Missing missing() const override { return inner_ ? inner_->missing() : Missing{}; }
  comm::LastPeer last_peer() const override {
    return inner_ ? inner_->last_peer() : comm::LastPeer{};
  }

 private:
  Pending inner_;
  std::function<void()> damage_;
};

class FaultyBackend : public comm::Backend {
 public:
  FaultyBackend(std::unique_ptr<comm::Backend> inner, std::string group, Fault fault)
      : inner_(std::move(inner)), group_(std::move(group)), fault_(std::move(fault)) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::vector<int>& world_ranks() const override { return inner_->world_ranks(); }
  std::string refusal(comm::OpKind op, DType dtype, StreamView stream) const override {
    return inner_->refusal(op, dtype, stream);
  }
  Pending all_reduce(const Call& call, Buffer inout, comm::ReduceOp op) override {
    return damaged(inner_->all_reduce(call, inout, op), call, inout);
  }
  Pending all_gather(const Call& call, Buffer in, Buffer out,
                     std::span<const int64_t> counts) override {
    return damaged(inner_->all_gather(call, in, out, counts), call, out);
  }
  Pending reduce_scatter(const Call& call, Buffer in, Buffer out,
                         std::span<const int64_t> counts) override {
    return damaged(inner_->reduce_scatter(call, in, out, counts), call, out);
  }
  Pending all_to_all(const Call& call, Buffer in, Buffer out) override {
    return damaged(inner_->all_to_all(call, in, out), call, out);
  }
  Pending broadcast(const Call& call, Buffer inout, int root) override {
    return damaged(inner_->broadcast(call, inout, root), call, inout);
  }
  Pending exchange(const Call& call, Buffer send, std::span<const Segment> send_segments,
                   Buffer receive, std::span<const Segment> receive_segments) override {
    return damaged(inner_->exchange(call, send, send_segments, receive, receive_segments), call,
                   receive);
  }
  Pending barrier(const Call& call) override { return inner_->barrier(call); }
  std::unique_ptr<comm::Backend> split(const Call& call, int colour, int key,
                                       const std::string& name, const comm::Waiter& wait) override {
    return make_faulty_backend(inner_->split(call, colour, key, name, wait), name, fault_);
  }
  void check() override { inner_->check(); }
  void abort(const std::string& reason) noexcept override { inner_->abort(reason); }

 private:
  Pending damaged(Pending operation, const Call& call, Buffer result) {
    return std::make_unique<FaultyOperation>(
        std::move(operation), [this, op = call.op, result] { fault_(op, group_, result); });
  }

  const std::unique_ptr<comm::Backend> inner_;
  const std::string group_;
  const Fault fault_;
};

}  // namespace

std::unique_ptr<comm::Backend> make_faulty_backend(std::unique_ptr<comm::Backend> inner,
                                                   std::string group, Fault fault) {
  return std::make_unique<FaultyBackend>(std::move(inner), std::move(group), std::move(fault));
}

}  // namespace sprocket::testing

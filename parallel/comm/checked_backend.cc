#include "parallel/comm/checked_backend.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "parallel/comm/missing_peers.h"

namespace sprocket::comm {
namespace {

const char* reduction_name(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return "sum";
    case ReduceOp::kMax:
      return "max";
    case ReduceOp::kMin:
      return "min";
  }
  return "?";
}

// What a rank says to each other one. Only int64_t members: it travels as such.
struct Declaration {
  int64_t op = 0;
  int64_t sequence = 0;
  int64_t dtype = -1;    // -1: no elements, any dtype agrees
  int64_t detail = -1;   // root or reduction
  int64_t elements = 0;  // of the whole operation; said, not compared
  int64_t digest = 0;    // of everything about counts that ranks must agree upon
  int64_t sent_to_you = 0;
  int64_t expected_from_you = 0;

  // Everything but the dtype.
  bool same_call(const Declaration& other) const {
    return op == other.op && sequence == other.sequence && detail == other.detail &&
           digest == other.digest;
  }
  std::string describe() const {
    const auto kind = static_cast<OpKind>(op);
    std::string text = fmt::format("{} seq {}", name_of(kind), sequence);
    if (dtype >= 0) {
      text += fmt::format(" of {} {}", elements, name_of(static_cast<DType>(dtype)));
    }
    if (kind == OpKind::kBroadcast) text += fmt::format(", root {}", detail);
    if (kind == OpKind::kAllReduce) {
      text += fmt::format(", {}", reduction_name(static_cast<ReduceOp>(detail)));
    }
    if (kind == OpKind::kAllGather || kind == OpKind::kReduceScatter) {
      text += fmt::format(", counts {:016x}", static_cast<uint64_t>(digest));
    }
    return text;
  }
};
constexpr int64_t kWords = sizeof(Declaration) / sizeof(int64_t);

int64_t digest_of(std::span<const int64_t> counts) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a over the words
  for (const int64_t count : counts) hash = (hash ^ static_cast<uint64_t>(count)) * 0x100000001b3u;
  return static_cast<int64_t>(hash | 1);
}

Declaration declare(const Call& call, const Buffer& buffer, std::span<const int64_t> counts,
                    int64_t detail = -1) {
  Declaration own;
  own.op = static_cast<int64_t>(call.op);
  own.sequence = call.sequence;
  own.detail = detail;
  own.elements = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  own.dtype = own.elements > 0 ? static_cast<int64_t>(buffer.dtype) : -1;
  own.digest = digest_of(counts);
  return own;
}

// Of the ranks that `eligible` admits the first one of the largest party, the ranks that `same`
// puts together; of equally large parties that of the smallest rank. -1 when none is eligible.
template <class Eligible, class Same>
int speaker_of_the_most(const std::vector<Declaration>& said, Eligible&& eligible, Same&& same) {
  int speaker = -1;
  int64_t largest = 0;
  for (int r = 0; r < static_cast<int>(said.size()); ++r) {
    if (!eligible(said[r])) continue;
    const int64_t party = std::count_if(said.begin(), said.end(), [&](const Declaration& other) {
      return eligible(other) && same(said[r], other);
    });
    if (party > largest) {
      largest = party;
      speaker = r;
    }
  }
  return speaker;
}

// All ranks compare the same declarations, so all come to the same verdict. Who has no elements
// goes along with any dtype, but has no say in it.
void check_agreement(const std::vector<Declaration>& said) {
  const auto any = [](const Declaration&) { return true; };
  int reference = speaker_of_the_most(
      said, any, [](const Declaration& a, const Declaration& b) { return a.same_call(b); });
  const Declaration& call = said[reference];
  const int typed = speaker_of_the_most(
      said, [&](const Declaration& d) { return d.same_call(call) && d.dtype >= 0; },
      [](const Declaration& a, const Declaration& b) { return a.dtype == b.dtype; });
  if (typed >= 0) reference = typed;
  std::vector<int> disagreeing;
  for (int r = 0; r < static_cast<int>(said.size()); ++r) {
    const bool other_type = said[r].dtype >= 0 && typed >= 0 && said[r].dtype != said[typed].dtype;
    if (!said[r].same_call(call) || other_type) disagreeing.push_back(r);
  }
  if (disagreeing.empty()) return;
  std::string text = "ranks disagree:";
  for (const int r : disagreeing) text += fmt::format(" rank {} calls {},", r, said[r].describe());
  text += fmt::format(" while {} of {} ranks, among them rank {}, call {}",
                      said.size() - disagreeing.size(), said.size(), reference,
                      said[reference].describe());
  throw BackendError(text, disagreeing.front());
}

class CheckedOperation : public Operation {
 public:
  using Start = std::function<Pending()>;

  CheckedOperation(Backend& inner, const Call& call, std::vector<Declaration> told,
                   std::chrono::milliseconds patience, Start start)
      : patience_(patience),
        told_(std::move(told)),
        heard_(told_.size()),
        start_(std::move(start)) {
    const auto words = static_cast<int64_t>(told_.size()) * kWords;
    step_ = inner.all_to_all(call, {told_.data(), words, DType::kI64},
                             {heard_.data(), words, DType::kI64});
  }

  bool poll() override {
    if (!agreed_) {
      if (step_ && !step_->poll()) {
        if (waiting_since_ && Clock::now() - *waiting_since_ > patience_) {
          const Missing missing = step_->missing();
          throw BackendError(
              fmt::format("waited {} ms for agreement with {}", patience_.count(), missing.what),
              missing.peer);
        }
        return false;
      }
      check_agreement(heard_);
      check_pairs();
      agreed_ = true;
      if (step_) agreement_last_ = step_->last_peer();
      step_ = start_();
    }
    return !step_ || step_->poll();
  }
  void pause(Clock::time_point until) override {
    if (!step_) return;
    if (!agreed_) {
      if (!waiting_since_) waiting_since_ = Clock::now();
      until = std::min(until, *waiting_since_ + patience_ + std::chrono::milliseconds(1));
    }
    step_->pause(until);
  }
  Missing missing() const override { return step_ ? step_->missing() : Missing{}; }
  LastPeer last_peer() const override {
    return step_ ? longer(agreement_last_, step_->last_peer()) : agreement_last_;
  }

 private:
  void check_pairs() const {
    for (int peer = 0; peer < static_cast<int>(told_.size()); ++peer) {
      if (heard_[peer].sent_to_you != told_[peer].expected_from_you) {
        throw BackendError(fmt::format("peer {} sends {} elements, expected {}", peer,
                                       heard_[peer].sent_to_you, told_[peer].expected_from_you),
                           peer);
      }
      if (heard_[peer].expected_from_you != told_[peer].sent_to_you) {
        throw BackendError(fmt::format("peer {} expects {} elements, this rank sends {}", peer,
                                       heard_[peer].expected_from_you, told_[peer].sent_to_you),
                           peer);
      }
    }
  }

  const std::chrono::milliseconds patience_;
  std::vector<Declaration> told_, heard_;
  const Start start_;
  std::optional<Clock::time_point> waiting_since_;
  bool agreed_ = false;
  LastPeer agreement_last_;
  Pending step_;
};

class CheckedBackend : public Backend {
 public:
  CheckedBackend(std::unique_ptr<Backend> inner, std::chrono::milliseconds patience)
      : inner_(std::move(inner)), patience_(patience) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::vector<int>& world_ranks() const override { return inner_->world_ranks(); }
  std::string refusal(OpKind op, DType dtype, StreamView stream) const override {
    if (!stream.is_host()) return "agreement is checked on host memory only";
    return inner_->refusal(op, dtype, stream);
  }

  Pending all_reduce(const Call& call, Buffer inout, ReduceOp op) override {
    return checked(
        call, declare(call, inout, one(inout.count), static_cast<int64_t>(op)),
        [=, this, inside = second(call)] { return inner_->all_reduce(inside, inout, op); });
  }
  Pending all_gather(const Call& call, Buffer in, Buffer out,
                     std::span<const int64_t> counts) override {
    return checked(call, declare(call, in, counts),
                   [=, this, inside = second(call), kept = copy(counts)] {
                     return inner_->all_gather(inside, in, out, kept);
                   });
  }
  Pending reduce_scatter(const Call& call, Buffer in, Buffer out,
                         std::span<const int64_t> counts) override {
    return checked(call, declare(call, in, counts),
                   [=, this, inside = second(call), kept = copy(counts)] {
                     return inner_->reduce_scatter(inside, in, out, kept);
                   });
  }
  Pending all_to_all(const Call& call, Buffer in, Buffer out) override {
    return checked(call, declare(call, in, one(in.count)), [=, this, inside = second(call)] {
      return inner_->all_to_all(inside, in, out);
    });
  }
  Pending broadcast(const Call& call, Buffer inout, int root) override {
    return checked(
        call, declare(call, inout, one(inout.count), root),
        [=, this, inside = second(call)] { return inner_->broadcast(inside, inout, root); });
  }
  Pending exchange(const Call& call, Buffer send, std::span<const Segment> send_segments,
                   Buffer receive, std::span<const Segment> receive_segments) override {
    std::vector<int64_t> to(size()), from(size());
    for (const auto& segment : send_segments) to[segment.peer] += segment.count;
    for (const auto& segment : receive_segments) from[segment.peer] += segment.count;
    Declaration own = declare(call, send, to);
    if (own.elements == 0) own = declare(call, receive, from);
    own.digest = 0;  // every rank has its own counts; pairs compare theirs
    std::vector<Declaration> told(size(), own);
    for (int peer = 0; peer < size(); ++peer) {
      told[peer].sent_to_you = to[peer];
      told[peer].expected_from_you = from[peer];
    }
    return checked(call, std::move(told),
                   [=, this, inside = second(call),
                    sends = std::vector(send_segments.begin(), send_segments.end()),
                    receives = std::vector(receive_segments.begin(), receive_segments.end())] {
                     return inner_->exchange(inside, send, sends, receive, receives);
                   });
  }
  Pending barrier(const Call& call) override {
    return checked(call, declare(call, {}, {}),
                   [=, this, inside = second(call)] { return inner_->barrier(inside); });
  }
  std::unique_ptr<Backend> split(const Call& call, int colour, int key, const std::string& name,
                                 const Waiter& wait) override {
    const Pending agreement = checked(call, declare(call, {}, {}), [] { return Pending(); });
    wait(*agreement);
    return std::make_unique<CheckedBackend>(inner_->split(second(call), colour, key, name, wait),
                                            patience_);
  }
  void check() override { inner_->check(); }
  void abort(const std::string& reason) noexcept override { inner_->abort(reason); }

 private:
  static std::vector<int64_t> one(int64_t count) { return {count}; }
  static std::vector<int64_t> copy(std::span<const int64_t> counts) {
    return {counts.begin(), counts.end()};
  }
  // The backend inside sees two operations for each: the agreement and the operation itself.
  static Call first(const Call& call) {
    return {OpKind::kAllToAll, 2 * call.sequence, StreamView::host()};
  }
  static Call second(const Call& call) { return {call.op, 2 * call.sequence + 1, call.stream}; }

  Pending checked(const Call& call, const Declaration& own, CheckedOperation::Start start) {
    return checked(call, std::vector<Declaration>(size(), own), std::move(start));
  }
  Pending checked(const Call& call, std::vector<Declaration> told, CheckedOperation::Start start) {
    return std::make_unique<CheckedOperation>(*inner_, first(call), std::move(told), patience_,
                                              std::move(start));
  }

  const std::unique_ptr<Backend> inner_;
  const std::chrono::milliseconds patience_;
};

}  // namespace

std::unique_ptr<Backend> make_checked_backend(std::unique_ptr<Backend> inner,
                                              std::chrono::milliseconds patience) {
  return std::make_unique<CheckedBackend>(std::move(inner), patience);
}

}  // namespace sprocket::comm

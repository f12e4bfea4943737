#include "runtime/planner/measure_links.h"

#include <algorithm>
#include <vector>

#include <ATen/ops/empty.h>

#include "base/error.h"
#include "parallel/tensor_buffer.h"
#include "runtime/planner/measure_kernels.h"

namespace sprocket::runtime {
namespace {

constexpr int kRepetitions = 9;
constexpr int64_t kLeastBytes = 8;
// Sizes of a layer's messages, as far as they take no longer than kLongest.
constexpr int64_t kFirstSize = 64 << 10, kLastSize = 16 << 20;
constexpr double kLongest = 0.6;
// What one direction, or one rank, gains by being alone on a link that it shares.
constexpr double kAloneFactor = 1.5;

class Meter {
 public:
  Meter(comm::Communicator& world, config::Link::Class which, int devices)
      : world_(world), inside_(which == config::Link::INSIDE_NODE), devices_(devices) {}

  // Seconds of one exchange of `bytes` with each of the first `peers` partners.
  double seconds(int64_t bytes, int peers = 1) const {
    return measure(
        bytes, peers, [](int) { return true; }, true);
  }
  double one_direction(int64_t bytes) const {
    return measure(
        bytes, 1, [](int) { return true; }, false);
  }
  double one_rank_of_a_node(int64_t bytes) const {
    return measure(
        bytes, 1, [&](int rank) { return rank % devices_ == 0; }, true);
  }
  // An exchange with `work` between its start and its end.
  std::function<void()> exchange(
      int64_t bytes, const std::function<void()>& work = [] {}) const {
    return exchange(
        bytes, 1, [](int) { return true; }, true, work);
  }
  int partners() const { return inside_ ? devices_ - 1 : world_.size() / devices_ - 1; }

 private:
  struct Plan {
    std::vector<comm::Segment> send, receive;
  };
  // Partner i of a rank: the rank i + 1 further around its node, or in the same place i + 1 nodes
  // further. Both are shifts, so that everybody sends to one and receives from another.
  int partner(int rank, int shift) const {
    const int nodes = world_.size() / devices_, node = rank / devices_, place = rank % devices_;
    return inside_ ? node * devices_ + (place + shift + devices_) % devices_
                   : (node + shift + nodes) % nodes * devices_ + place;
  }

  template <class Takes>
  Plan plan_of(int64_t bytes, int peers, Takes&& takes_part, bool both) const {
    Plan plan;
    for (int i = 1; i <= peers; ++i) {
      const int self = world_.rank(), to = partner(self, i), from = partner(self, -i);
      // Of two partners the lower one alone sends where one direction is wanted.
      const auto sends = [&](int rank, int target) {
        return takes_part(rank) && takes_part(target) && (both || rank < target);
      };
      if (sends(self, to)) {
        plan.send.push_back({to, static_cast<int64_t>(plan.send.size()) * bytes, bytes});
      }
      if (sends(from, self)) {
        plan.receive.push_back({from, static_cast<int64_t>(plan.receive.size()) * bytes, bytes});
      }
    }
    return plan;
  }

  template <class Takes>
  double measure(int64_t bytes, int peers, Takes&& takes_part, bool both) const {
    return median_seconds(&world_, kRepetitions, exchange(bytes, peers, takes_part, both, [] {}));
  }

  template <class Takes>
  std::function<void()> exchange(int64_t bytes, int peers, Takes&& takes_part, bool both,
                                 const std::function<void()>& meanwhile) const {
    const Plan plan = plan_of(bytes, peers, takes_part, both);
    const auto buffer = [bytes](const std::vector<comm::Segment>& segments) {
      return at::empty({static_cast<int64_t>(segments.size()) * bytes}, at::kByte);
    };
    const at::Tensor sent = buffer(plan.send).fill_(1);
    return [this, plan, buffer, sent, meanwhile] {
      // As in a run, memory that is received into is new.
      const at::Tensor received = buffer(plan.receive);
      comm::Work moving = world_.exchange(parallel::buffer_of(sent), plan.send,
                                          parallel::buffer_of(received), plan.receive);
      meanwhile();
      moving.wait_host();
    };
  }

  comm::Communicator& world_;
  bool inside_;
  int devices_;
};

}  // namespace

config::Link measure_link(comm::Communicator& world, config::Link::Class which, int devices,
                          const MakeBusy& make_busy) {
  constexpr double kMicro = 1e-6, kGiga = 1e9;
  const Meter meter(world, which, devices);
  SPROCKET_CHECK(meter.partners() >= 1, "no two ranks are joined by a {} link",
                 config::Link::Class_Name(which));
  config::Link link;
  link.set_class_(which);
  const double latency = meter.seconds(kLeastBytes);
  link.set_latency_us(latency / kMicro);
  const int partners = meter.partners();
  const double further =
      partners > 1 ? std::max(0.0, meter.seconds(kLeastBytes, partners) - latency) / (partners - 1)
                   : latency;
  link.set_message_us(further / kMicro);

  int64_t size = kFirstSize;
  double seconds = meter.seconds(size);
  while (size < kLastSize && 4 * seconds < kLongest) {
    size *= 4;
    seconds = meter.seconds(size);
  }
  const double smaller = meter.seconds(size / 4);
  double bandwidth = 0.75 * static_cast<double>(size) / std::max(seconds - smaller, 0.25 * seconds);

  const double one_way = static_cast<double>(size) / meter.one_direction(size);
  const bool half = one_way > kAloneFactor * bandwidth;
  link.set_duplex(half ? config::Link::HALF : config::Link::FULL);
  if (half) bandwidth = one_way;
  link.set_adapter(config::Link::PER_DEVICE);
  if (which == config::Link::BETWEEN_NODES && devices > 1) {
    const double alone = static_cast<double>(size) / meter.one_rank_of_a_node(size);
    if (alone > kAloneFactor * bandwidth) {
      link.set_adapter(config::Link::SHARED);
      bandwidth = alone;
    }
  }
  link.set_bandwidth_gb_s(bandwidth / kGiga);

  const std::function<void()> busy = make_busy(seconds);
  const std::vector<double> times = medians_in_turns(
      &world, kRepetitions, {meter.exchange(size), busy, meter.exchange(size, busy)});
  const double hidden = times[0] + times[1] - times[2];
  link.set_overlap(std::clamp(hidden / std::min(times[0], times[1]), 0.0, 1.0));
  return link;
}

}  // namespace sprocket::runtime

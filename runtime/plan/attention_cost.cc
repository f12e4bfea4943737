#include "runtime/plan/attention_cost.h"

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <numeric>

namespace sprocket::runtime {
namespace {

void add(PhaseCost& sum, const PhaseCost& part) {
  sum.kernels += part.kernels;
  sum.copies += part.copies;
  sum.transfer += part.transfer;
  sum.exposed += part.exposed;
}

class Layer {
 public:
  Layer(const DeviceModel& device, const AttentionWork& work) : device_(device), work_(work) {}

  PhaseCost forward() const {
    const AttentionTransfers& t = work_.transfers;
    const double inputs = 3 + work_.gates;
    if (work_.head_groups > 1) {
      return in_groups(
          t.ulysses_in, t.ulysses_out, [&](int r) { return pass(r, local_pairs(r), false); },
          [&](int r) {
            PhaseCost cost = select(r);
            add(cost, start_output(r));
            add(cost, finish(r));
            return cost;
          });
    }
    return slowest({
        [&](int r) { return exchange_heads(r, inputs, t.ulysses_in); },
        [&](int r) { return select(r); },
        [&](int r) { return fine_forward(r); },
        [&](int r) {
          PhaseCost part = finish(r);
          add(part, exchange_heads(r, 1, t.ulysses_out));
          return part;
        },
    });
  }

  PhaseCost backward() const {
    const AttentionTransfers& t = work_.transfers;
    const double inputs = 3 + work_.gates;
    if (work_.head_groups > 1) {
      return in_groups(
          t.ulysses_gradient_out, t.ulysses_gradient_in,
          [&](int r) { return pass(r, local_pairs(r), true); },
          [&](int r) {
            PhaseCost cost = begin_backward(r);
            add(cost, summary_gradients(r));
            add(cost, convert_gradients(r));
            return cost;
          });
    }
    return slowest({
        [&](int r) { return exchange_heads(r, 1, t.ulysses_gradient_out); },
        [&](int r) {
          PhaseCost part = begin_backward(r);
          add(part, fine_backward(r));
          return part;
        },
        [&](int r) { return summary_gradients(r); },
        [&](int r) {
          PhaseCost part = convert_gradients(r);
          add(part, exchange_heads(r, inputs, t.ulysses_gradient_in));
          return part;
        },
    });
  }

 private:
  using Part = std::function<PhaseCost(int)>;

  PhaseCost slowest(const std::vector<Part>& parts) const {
    PhaseCost sum;
    for (const Part& part : parts) {
      PhaseCost longest;
      for (int rank = 0; rank < static_cast<int>(work_.ranks.size()); ++rank) {
        const PhaseCost cost = part(rank);
        if (cost.seconds() > longest.seconds()) longest = cost;
      }
      add(sum, longest);
    }
    return sum;
  }

  // While a group of heads is attended to, the next one arrives and the former one leaves.
  PhaseCost in_groups(const Transfers& arriving, const Transfers& leaving, const Part& attention,
                      const Part& others) const {
    const int groups = work_.head_groups;
    static const Transfers kNone;
    std::vector<Part> parts{[&](int r) {
      PhaseCost cost = head_copies(r, 4 + work_.gates);
      add(cost, alone(arriving, r));
      return cost;
    }};
    for (int group = 0; group < groups; ++group) {
      parts.push_back([&, group](int r) {
        PhaseCost cost = share(others(r), groups);
        add(cost, beside(share(attention(r), groups), r,
                         {group + 1 < groups ? &arriving : &kNone, group > 0 ? &leaving : &kNone}));
        return cost;
      });
    }
    parts.push_back([&](int r) { return alone(leaving, r); });
    return slowest(parts);
  }

  static PhaseCost share(PhaseCost cost, int of) {
    cost.kernels /= of;
    cost.copies /= of;
    cost.transfer /= of;
    cost.exposed /= of;
    return cost;
  }

  const RankWork& rank(int r) const { return work_.ranks[r]; }

  // Bytes read and written; a copy of n bytes moves 2 n.
  PhaseCost moved(double bytes, int calls = 1) const {
    return {0, bytes / (2 * device_.copy) + calls * device_.call, 0, 0};
  }
  PhaseCost kernel(double operations, double rate) const {
    if (operations == 0) return {};
    return {operations / rate + device_.call, 0, 0, 0};
  }
  // Of a rank's queries over some of the keys.
  PhaseCost pass(int r, double pairs, bool backward) const {
    if (pairs == 0) return {};
    PhaseCost cost = backward ? kernel(10.0 * work_.head_dim * pairs, device_.attention_backward)
                              : kernel(4.0 * work_.head_dim * pairs, device_.attention_forward);
    cost.kernels += rank(r).query_rows * (backward ? device_.backward_row : device_.forward_row);
    return cost;
  }
  static PhaseCost alone(const Transfers& transfers, int r) {
    if (transfers.empty()) return {};
    return {0, 0, transfers[r].seconds, transfers[r].seconds};
  }
  // `transfers` on one link, one after the other.
  PhaseCost beside(PhaseCost kernels, int r,
                   std::initializer_list<const Transfers*> transfers) const {
    TransferTime all{0, 1};
    for (const Transfers* each : transfers) {
      if (each->empty()) continue;
      all.seconds += (*each)[r].seconds;
      all.overlap = std::min(all.overlap, (*each)[r].overlap);
    }
    if (!work_.overlap) all.overlap = 0;
    kernels.transfer += all.seconds;
    kernels.exposed += all.seconds - all.overlap * std::min(kernels.kernels, all.seconds);
    return kernels;
  }

  double local_pairs(int r) const { return rank(r).pairs[r / work_.ulysses_degree]; }
  double remote_pairs(int r) const {
    return std::accumulate(rank(r).pairs.begin(), rank(r).pairs.end(), 0.0) - local_pairs(r);
  }

  // Packed where they are, unpacked where they arrive.
  PhaseCost head_copies(int r, double tensors) const {
    const double bytes = tensors * work_.element;
    PhaseCost cost = moved(2 * bytes * rank(r).own_elements);
    add(cost, moved(2 * bytes * rank(r).shard_elements));
    return cost;
  }

  PhaseCost exchange_heads(int r, double tensors, const Transfers& transfers) const {
    if (work_.ulysses_degree == 1) return {};
    PhaseCost cost = head_copies(r, tensors);
    add(cost, alone(transfers, r));
    return cost;
  }

  PhaseCost select(int r) const {
    PhaseCost cost;
    if (rank(r).summary_elements > 0) cost = moved(rank(r).summary_elements * work_.element);
    add(cost, alone(work_.transfers.summaries, r));
    add(cost, kernel(rank(r).selection_operations, device_.selection));
    return cost;
  }

  // It starts as zeros.
  PhaseCost start_output(int r) const { return moved(rank(r).shard_elements * work_.accumulator); }

  PhaseCost fine_forward(int r) const {
    const RankWork& own = rank(r);
    const Transfers& fetch = work_.transfers.fetch;
    PhaseCost cost = start_output(r);
    switch (work_.outer) {
      case OuterKind::kLocal:
        add(cost, pass(r, local_pairs(r), false));
        break;
      case OuterKind::kRing:
        add(cost, moved(2 * 2 * own.key_elements * work_.element));
        for_each_ring_step(r, [&](int owner, bool, bool last) {
          const PhaseCost step = pass(r, own.pairs[owner], false);
          add(cost, last ? step : beside(step, r, {&fetch}));
        });
        break;
      case OuterKind::kAllGather:
      case OuterKind::kSelected:
        add(cost, moved(2 * own.sent_elements * work_.element));
        if (work_.single_pass) {
          add(cost, alone(fetch, r));
          add(cost, pass(r, local_pairs(r) + remote_pairs(r), false));
        } else {
          add(cost, beside(pass(r, local_pairs(r), false), r, {&fetch}));
          add(cost, pass(r, remote_pairs(r), false));
        }
        break;
    }
    return cost;
  }

  PhaseCost finish(int r) const {
    const double elements = rank(r).shard_elements;
    if (work_.branches) {
      return moved(elements * (work_.accumulator + (1 + work_.gates) * work_.element));
    }
    if (work_.element == work_.accumulator) return {};
    return moved(elements * (work_.accumulator + work_.element));
  }

  PhaseCost begin_backward(int r) const {
    const RankWork& own = rank(r);
    // Row sums of output times gradient; the gradients of q, k and v start as zeros.
    PhaseCost cost = moved(own.shard_elements * (work_.accumulator + work_.element));
    add(cost, moved((own.shard_elements + 2 * own.key_elements) * work_.accumulator));
    if (work_.branches)
      add(cost, moved(own.shard_elements * (1 + 2 * work_.gates) * work_.element));
    return cost;
  }

  PhaseCost fine_backward(int r) const {
    const RankWork& own = rank(r);
    const AttentionTransfers& t = work_.transfers;
    const double a = work_.accumulator, e = work_.element;
    PhaseCost cost;
    switch (work_.outer) {
      case OuterKind::kLocal:
        add(cost, pass(r, local_pairs(r), true));
        break;
      case OuterKind::kRing:
        add(cost, moved(2 * own.key_elements * (2 * e + a)));
        for_each_ring_step(r, [&](int owner, bool first, bool last) {
          static const Transfers kNone;
          add(cost, beside(pass(r, own.pairs[owner], true), r,
                           {last ? &kNone : &t.fetch_again, first ? &kNone : &t.give_back}));
          // A new sum, and the former one added to it.
          add(cost, moved(2 * own.key_elements * (first ? a : 4 * a)));
        });
        add(cost, alone(t.give_back, r));
        add(cost, moved(3 * 2 * own.key_elements * a));
        break;
      case OuterKind::kAllGather:
      case OuterKind::kSelected: {
        const double own_rows = 2 * own.key_elements;
        if (!t.fetch_again.empty()) {
          add(cost, moved(2 * own.sent_elements * e));
          add(cost, alone(t.fetch_again, r));
        }
        // Sums of the fetched and of the own rows start as zeros; the former are converted.
        add(cost, moved(own.received_elements * (2 * a + e) + own_rows * a));
        if (work_.single_pass) {
          add(cost, pass(r, local_pairs(r) + remote_pairs(r), true));
          add(cost, alone(t.give_back, r));
        } else {
          // The first group's pass has no transfer beside it yet.
          const PhaseCost remote = pass(r, remote_pairs(r), true);
          PhaseCost others = pass(r, local_pairs(r), true);
          const double first = 1.0 / work_.fetch_groups;
          others.kernels += (1 - first) * remote.kernels;
          add(cost, {first * remote.kernels, 0, 0, 0});
          add(cost, beside(others, r, {&t.give_back}));
        }
        add(cost, moved(own.returned_elements * (e + 2 * a) + 3 * own_rows * a));
        break;
      }
    }
    return cost;
  }

  PhaseCost summary_gradients(int r) const {
    PhaseCost cost = kernel(rank(r).selection_gradient_operations, device_.selection);
    if (work_.transfers.summary_gradients.empty() && rank(r).selection_gradient_operations == 0) {
      return cost;
    }
    add(cost, alone(work_.transfers.summary_gradients, r));
    add(cost, moved(3 * 2 * rank(r).shard_elements * work_.accumulator));
    return cost;
  }

  PhaseCost convert_gradients(int r) const {
    if (work_.element == work_.accumulator) return {};
    return moved(3 * rank(r).shard_elements * (work_.accumulator + work_.element));
  }

  template <class Step>
  void for_each_ring_step(int r, Step&& step) const {
    const int ranks = work_.outer_degree, self = r / work_.ulysses_degree;
    for (int i = 0; i < ranks; ++i) step((self - i + ranks) % ranks, i == 0, i + 1 == ranks);
  }

  const DeviceModel& device_;
  const AttentionWork& work_;
};

}  // namespace

AttentionCost attention_cost(const DeviceModel& device, const AttentionWork& work) {
  const Layer layer(device, work);
  return {layer.forward(), layer.backward()};
}

}  // namespace sprocket::runtime

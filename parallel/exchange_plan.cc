#include "parallel/exchange_plan.h"

namespace sprocket::parallel {

ExchangePlan transpose(const ExchangePlan& plan) {
  return {plan.receive, plan.send, plan.receive_count, plan.send_count};
}

PlanTraffic traffic_of(const ExchangePlan& plan, int self) {
  PlanTraffic traffic;
  for (const auto& segment : plan.send) {
    if (segment.peer == self || segment.count == 0) continue;
    traffic.elements += segment.count;
    ++traffic.messages;
  }
  return traffic;
}

ExchangePlan gather_plan(const std::vector<int64_t>& counts, int self) {
  const int size = static_cast<int>(counts.size());
  ExchangePlan plan;
  plan.send_count = counts[self];
  for (int peer = 0; peer < size; ++peer) {
    plan.send.push_back({peer, 0, peer == self ? 0 : counts[self]});
    plan.receive.push_back({peer, plan.receive_count, peer == self ? 0 : counts[peer]});
    plan.receive_count += plan.receive.back().count;
  }
  return plan;
}

ExchangePlan ring_step_plan(const std::vector<int64_t>& counts, int self, int step) {
  const int size = static_cast<int>(counts.size());
  const int64_t outgoing = counts[(self - step + size) % size];
  const int64_t incoming = counts[(self - step - 1 + 2 * size) % size];
  return {{{(self + 1) % size, 0, outgoing}},
          {{(self + size - 1) % size, 0, incoming}},
          outgoing,
          incoming};
}

ExchangePlan ulysses_plan(const std::vector<int64_t>& rows, int64_t part, int self) {
  const int size = static_cast<int>(rows.size());
  ExchangePlan plan;
  for (int peer = 0; peer < size; ++peer) {
    plan.send.push_back({peer, plan.send_count, rows[self] * part});
    plan.send_count += rows[self] * part;
    plan.receive.push_back({peer, plan.receive_count, rows[peer] * part});
    plan.receive_count += rows[peer] * part;
  }
  return plan;
}

}  // namespace sprocket::parallel

// Plans of data movement: plain structs made by integer code, compared and transposed.
//
// A plan lists, for one rank and one exchange, what it sends and receives in units of elements. The
// backward of a movement is its transpose: what was received is sent back to where it came from.
#pragma once

#include <vector>

#include "parallel/comm/communicator.h"

namespace sprocket::parallel {

struct ExchangePlan {
  std::vector<comm::Segment> send;
  std::vector<comm::Segment> receive;
  int64_t send_count = 0;     // elements of the send buffer
  int64_t receive_count = 0;  // elements of the receive buffer
  bool operator==(const ExchangePlan&) const = default;
};

ExchangePlan transpose(const ExchangePlan& plan);

// Elements and messages that leave the rank `self` (its own segments are copies).
struct PlanTraffic {
  int64_t elements = 0;
  int64_t messages = 0;
};
PlanTraffic traffic_of(const ExchangePlan& plan, int self);

// Every rank r holds counts[r] elements and receives everybody else's: the receive buffer is in
// rank order, without the own part.
ExchangePlan gather_plan(const std::vector<int64_t>& counts, int self);

// Step s of a ring: the shard (self - s) goes to self + 1, the shard (self - s - 1) arrives from
// self - 1.
ExchangePlan ring_step_plan(const std::vector<int64_t>& counts, int self, int step);

// Ulysses: member u of the group holds rows[u] rows of all heads. Every row has
// group-size parts of `part` elements, part p for member p. Send buffer: [peer][rows[self]][part];
// receive buffer: [peer][rows[peer]][part].
ExchangePlan ulysses_plan(const std::vector<int64_t>& rows, int64_t part, int self);

}  // namespace sprocket::parallel

#include "parallel/ulysses.h"

#include <numeric>

#include <ATen/ops/empty.h>

#include "base/error.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

// Adjacent heads that a member holds at adjacent places of the group.
struct HeadRun {
  int64_t member, place, head, count;
};

std::vector<HeadRun> runs_of(const HeadGroup& group, int64_t members, int64_t heads) {
  std::vector<HeadRun> runs;
  for (int64_t member = 0; member < members; ++member) {
    const auto held = group.order.subspan((member * group.count + group.index) * heads, heads);
    for (int64_t place = 0; place < heads; ++place) {
      if (place > 0 && held[place] == held[place - 1] + 1) {
        ++runs.back().count;
      } else {
        runs.push_back({member, place, held[place], 1});
      }
    }
  }
  return runs;
}

}  // namespace

Ulysses::Ulysses(comm::Communicator& group, std::vector<int64_t> rows)
    : group_(group), rows_(std::move(rows)) {
  SPROCKET_CHECK_EQ(static_cast<int>(rows_.size()), group_.size());
  all_rows_ = std::accumulate(rows_.begin(), rows_.end(), int64_t{0});
}

ExchangePlan Ulysses::plan(const at::Tensor& example, size_t tensors, int64_t heads_here) const {
  return ulysses_plan(
      rows_, static_cast<int64_t>(tensors) * example.size(0) * heads_here * example.size(3),
      group_.rank());
}

Ulysses::Movement Ulysses::start_scatter(const std::vector<at::Tensor>& x_BLHD,
                                         const HeadGroup& group) const {
  const int64_t size = group_.size();
  Movement movement;
  movement.tensors = x_BLHD.size();
  if (size == 1) {
    SPROCKET_CHECK_EQ(group.count, 1);
    movement.unmoved = x_BLHD;
    return movement;
  }
  const at::Tensor& first = x_BLHD.front();
  const auto tensors = static_cast<int64_t>(x_BLHD.size());
  const int64_t batch = first.size(0), rows = first.size(1), dim = first.size(3);
  SPROCKET_CHECK_EQ(rows, rows_[group_.rank()]);
  SPROCKET_CHECK(first.size(2) % (size * group.count) == 0, "{} heads over {} ranks in {} groups",
                 first.size(2), size, group.count);
  const int64_t heads = first.size(2) / size / group.count;
  movement.sent = at::empty({size, tensors, batch, rows, heads, dim}, first.options());
  {
    Timeline::Scope scope(group_.options().timeline, Activity::kCopy, "ulysses.pack",
                          [&] { return moving(movement.sent, movement.sent); });
    for (int64_t t = 0; t < tensors; ++t) {
      if (group.order.empty()) {
        movement.sent.select(1, t).copy_(x_BLHD[t]
                                             .view({batch, rows, size, group.count, heads, dim})
                                             .select(3, group.index)
                                             .movedim(2, 0));
        continue;
      }
      for (const HeadRun& run : runs_of(group, size, heads)) {
        movement.sent[run.member][t]
            .narrow(2, run.place, run.count)
            .copy_(x_BLHD[t].narrow(2, run.head, run.count));
      }
    }
  }
  movement.plan = plan(first, x_BLHD.size(), heads);
  movement.received = at::empty({movement.plan.receive_count}, first.options());
  movement.work = exchange_tensors(group_, movement.plan, movement.sent, movement.received);
  return movement;
}

std::vector<at::Tensor> Ulysses::finish_scatter(Movement& movement) const {
  if (!movement.unmoved.empty()) return std::move(movement.unmoved);
  movement.work.wait(stream_of(movement.received));
  Timeline::Scope scope(group_.options().timeline, Activity::kCopy, "ulysses.unpack",
                        [&] { return moving(movement.received, movement.received); });
  const auto tensors = static_cast<int64_t>(movement.tensors);
  const int64_t batch = movement.sent.size(2), heads = movement.sent.size(4),
                dim = movement.sent.size(5);
  std::vector<at::Tensor> out;
  for (int64_t t = 0; t < tensors; ++t) {
    out.push_back(at::empty({batch, all_rows_, heads, dim}, movement.sent.options()));
  }
  int64_t row = 0;
  for (int peer = 0; peer < group_.size(); ++peer) {
    const auto& segment = movement.plan.receive[peer];
    const at::Tensor part = movement.received.narrow(0, segment.offset, segment.count)
                                .view({tensors, batch, rows_[peer], heads, dim});
    for (int64_t t = 0; t < tensors; ++t) out[t].narrow(1, row, rows_[peer]).copy_(part[t]);
    row += rows_[peer];
  }
  movement.sent.reset();
  movement.received.reset();
  return out;
}

Ulysses::Movement Ulysses::start_gather(const std::vector<at::Tensor>& x_BLHD) const {
  const int size = group_.size();
  Movement movement;
  movement.tensors = x_BLHD.size();
  if (size == 1) {
    movement.unmoved = x_BLHD;
    return movement;
  }
  const at::Tensor& first = x_BLHD.front();
  const auto tensors = static_cast<int64_t>(x_BLHD.size());
  const int64_t batch = first.size(0), heads = first.size(2), dim = first.size(3);
  SPROCKET_CHECK_EQ(first.size(1), all_rows_);
  movement.plan = transpose(plan(first, x_BLHD.size(), heads));
  movement.sent = at::empty({movement.plan.send_count}, first.options());
  {
    Timeline::Scope scope(group_.options().timeline, Activity::kCopy, "ulysses.pack",
                          [&] { return moving(movement.sent, movement.sent); });
    int64_t row = 0;
    for (int peer = 0; peer < size; ++peer) {
      const auto& segment = movement.plan.send[peer];
      const at::Tensor part = movement.sent.narrow(0, segment.offset, segment.count)
                                  .view({tensors, batch, rows_[peer], heads, dim});
      for (int64_t t = 0; t < tensors; ++t) part[t].copy_(x_BLHD[t].narrow(1, row, rows_[peer]));
      row += rows_[peer];
    }
  }
  movement.received =
      at::empty({size, tensors, batch, rows_[group_.rank()], heads, dim}, first.options());
  movement.work = exchange_tensors(group_, movement.plan, movement.sent, movement.received);
  return movement;
}

void Ulysses::finish_gather(Movement& movement, const HeadGroup& group,
                            std::vector<at::Tensor>& to) const {
  if (!movement.unmoved.empty()) {
    to = std::move(movement.unmoved);
    return;
  }
  movement.work.wait(stream_of(movement.received));
  Timeline::Scope scope(group_.options().timeline, Activity::kCopy, "ulysses.unpack",
                        [&] { return moving(movement.received, movement.received); });
  const int64_t size = group_.size(), batch = movement.received.size(2),
                rows = movement.received.size(3), heads = movement.received.size(4),
                dim = movement.received.size(5);
  to.resize(movement.tensors);
  for (size_t t = 0; t < movement.tensors; ++t) {
    if (!to[t].defined()) {
      to[t] =
          at::empty({batch, rows, size * group.count * heads, dim}, movement.received.options());
    }
    if (group.order.empty()) {
      to[t]
          .view({batch, rows, size, group.count, heads, dim})
          .select(3, group.index)
          .copy_(movement.received.select(1, static_cast<int64_t>(t)).movedim(0, 2));
      continue;
    }
    for (const HeadRun& run : runs_of(group, size, heads)) {
      to[t]
          .narrow(2, run.head, run.count)
          .copy_(movement.received[run.member][static_cast<int64_t>(t)].narrow(2, run.place,
                                                                               run.count));
    }
  }
}

}  // namespace sprocket::parallel

#include "parallel/ulysses.h"

#include <numeric>

#include <ATen/ops/empty.h>

#include "base/error.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {

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

std::vector<at::Tensor> Ulysses::scatter_heads(const std::vector<at::Tensor>& x_BLHD) const {
  const int size = group_.size();
  if (size == 1) return x_BLHD;
  const at::Tensor& first = x_BLHD.front();
  const int64_t tensors = static_cast<int64_t>(x_BLHD.size()), batch = first.size(0),
                dim = first.size(3);
  SPROCKET_CHECK_EQ(first.size(1), rows_[group_.rank()]);
  SPROCKET_CHECK(first.size(2) % size == 0, "{} heads over {} ranks", first.size(2), size);
  const int64_t heads = first.size(2) / size;

  at::Tensor send = at::empty({size, tensors, batch, first.size(1), heads, dim}, first.options());
  {
    Timeline::Scope scope(group_.options().timeline, Activity::kCopy, "ulysses.pack");
    for (int64_t t = 0; t < tensors; ++t) {
      send.select(1, t).copy_(
          x_BLHD[t].view({batch, first.size(1), size, heads, dim}).movedim(2, 0));
    }
  }
  const ExchangePlan movement = plan(first, x_BLHD.size(), heads);
  at::Tensor receive = at::empty({movement.receive_count}, first.options());
  group_.exchange(buffer_of(send), movement.send, buffer_of(receive), movement.receive).wait_host();

  Timeline::Scope scope(group_.options().timeline, Activity::kCopy, "ulysses.unpack");
  std::vector<at::Tensor> out;
  for (int64_t t = 0; t < tensors; ++t) {
    out.push_back(at::empty({batch, all_rows_, heads, dim}, first.options()));
  }
  int64_t row = 0;
  for (int peer = 0; peer < size; ++peer) {
    const auto& segment = movement.receive[peer];
    const at::Tensor part = receive.narrow(0, segment.offset, segment.count)
                                .view({tensors, batch, rows_[peer], heads, dim});
    for (int64_t t = 0; t < tensors; ++t) out[t].narrow(1, row, rows_[peer]).copy_(part[t]);
    row += rows_[peer];
  }
  return out;
}

std::vector<at::Tensor> Ulysses::gather_heads(const std::vector<at::Tensor>& x_BLHD) const {
  const int size = group_.size();
  if (size == 1) return x_BLHD;
  const at::Tensor& first = x_BLHD.front();
  const int64_t tensors = static_cast<int64_t>(x_BLHD.size()), batch = first.size(0);
  const int64_t heads = first.size(2), dim = first.size(3), own_rows = rows_[group_.rank()];
  SPROCKET_CHECK_EQ(first.size(1), all_rows_);

  const ExchangePlan movement = transpose(plan(first, x_BLHD.size(), heads));
  at::Tensor send = at::empty({movement.send_count}, first.options());
  {
    Timeline::Scope scope(group_.options().timeline, Activity::kCopy, "ulysses.pack");
    int64_t row = 0;
    for (int peer = 0; peer < size; ++peer) {
      const auto& segment = movement.send[peer];
      const at::Tensor part = send.narrow(0, segment.offset, segment.count)
                                  .view({tensors, batch, rows_[peer], heads, dim});
      for (int64_t t = 0; t < tensors; ++t) part[t].copy_(x_BLHD[t].narrow(1, row, rows_[peer]));
      row += rows_[peer];
    }
  }
  at::Tensor receive = at::empty({size, tensors, batch, own_rows, heads, dim}, first.options());
  group_.exchange(buffer_of(send), movement.send, buffer_of(receive), movement.receive).wait_host();

  Timeline::Scope scope(group_.options().timeline, Activity::kCopy, "ulysses.unpack");
  std::vector<at::Tensor> out;
  for (int64_t t = 0; t < tensors; ++t) {
    at::Tensor x = at::empty({batch, own_rows, size * heads, dim}, first.options());
    x.view({batch, own_rows, size, heads, dim}).copy_(receive.select(1, t).movedim(0, 2));
    out.push_back(std::move(x));
  }
  return out;
}

}  // namespace sprocket::parallel

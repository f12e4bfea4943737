#include "runtime/attention/rank_tokens.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include <ATen/ops/empty.h>

#include "base/error.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::runtime {
namespace {

// Bytes of one token of x [B, n, …].
int64_t token_bytes(const at::Tensor& x) {
  int64_t bytes = x.element_size();
  for (int64_t dim = 2; dim < x.dim(); ++dim) bytes *= x.size(dim);
  return bytes;
}

std::vector<int64_t> sizes_with_tokens(const at::Tensor& x, int64_t tokens) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes[1] = tokens;
  return sizes;
}

const char* bytes_of(const at::Tensor& x) { return static_cast<const char*>(x.data_ptr()); }

// counts[r] elements of rank r to rank 0, one message each.
void gather_to_first(comm::Communicator& world, comm::Buffer own, comm::Buffer all,
                     std::span<const int64_t> counts) {
  std::vector<comm::Segment> receive;
  if (world.rank() == 0) {
    int64_t offset = 0;
    for (int rank = 0; rank < world.size(); ++rank) {
      receive.push_back({rank, offset, counts[rank]});
      offset += counts[rank];
    }
  }
  const comm::Segment send{0, 0, own.count};
  world.exchange(own, std::span(&send, 1), all, receive).wait_host();
}

}  // namespace

RankTokens rank_tokens(const parallel::TokenLayout& layout, const parallel::ShardPlan& plan,
                       int rank) {
  const auto begin = layout.raster_index.begin() + plan.rank_tokens[rank];
  const int64_t count = plan.tokens_of(rank);
  RankTokens tokens;
  tokens.to_input.resize(count);
  std::iota(tokens.to_input.begin(), tokens.to_input.end(), int64_t{0});
  std::sort(tokens.to_input.begin(), tokens.to_input.end(),
            [&](int64_t a, int64_t b) { return begin[a] < begin[b]; });
  tokens.to_block.resize(count);
  for (int64_t i = 0; i < count; ++i) {
    tokens.places.push_back(begin[tokens.to_input[i]]);
    tokens.to_block[tokens.to_input[i]] = i;
  }
  return tokens;
}

void permute_tokens(const at::Tensor& x, std::span<const int64_t> order, int threads,
                    const at::Tensor& result) {
  SPROCKET_CHECK(x.is_contiguous() && result.is_contiguous() && x.sizes() == result.sizes() &&
                     x.size(1) == std::ssize(order),
                 "{} tokens, {} in the result, an order of {}", x.size(1), result.size(1),
                 order.size());
  const int64_t bytes = token_bytes(x), tokens = x.size(1), rows = x.size(0) * tokens;
  const char* from = bytes_of(x);
  char* to = static_cast<char*>(result.data_ptr());
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t first = row / tokens * tokens;
    std::memcpy(to + row * bytes, from + (first + order[row - first]) * bytes, bytes);
  }
}

at::Tensor gather_tokens(comm::Communicator& world, const parallel::TokenLayout& layout,
                         const parallel::ShardPlan& plan, const at::Tensor& own) {
  const bool first = world.rank() == 0;
  const int64_t tokens = layout.tokens(), bytes = token_bytes(own);
  at::Tensor all = at::empty(sizes_with_tokens(own, first ? tokens : 0), own.options());
  std::vector<int64_t> counts;
  for (int rank = 0; rank < world.size(); ++rank) {
    counts.push_back(own.size(0) * plan.tokens_of(rank) * bytes / own.element_size());
  }
  gather_to_first(world, parallel::buffer_of(own), parallel::buffer_of(all), counts);
  if (!first) return {};
  at::Tensor result = at::empty(all.sizes(), all.options());
  const char* from = bytes_of(all);
  char* to = static_cast<char*>(result.data_ptr());
  for (int rank = 0; rank < world.size(); ++rank) {
    const RankTokens share = rank_tokens(layout, plan, rank);
    for (int64_t batch = 0; batch < own.size(0); ++batch) {
      for (const int64_t place : share.places) {
        std::memcpy(to + (batch * tokens + place) * bytes, from, bytes);
        from += bytes;
      }
    }
  }
  return result;
}

std::vector<uint8_t> gather_bytes(comm::Communicator& world, std::span<const uint8_t> own,
                                  std::span<const int64_t> counts) {
  std::vector<uint8_t> all;
  if (world.rank() == 0) all.resize(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
  gather_to_first(world, comm::Buffer::of(own), comm::Buffer::of(std::span(all)), counts);
  return all;
}

}  // namespace sprocket::runtime

#include "parallel/attention/block_summaries.h"

#include <ATen/ops/empty.h>

#include "kernels/block_pooling.h"
#include "parallel/attention/block_summaries_device.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

// Where the parts of several tensors lie in one buffer: rank after rank, a rank's tensors one after
// the other.
class Packing {
 public:
  Packing(const OuterShards& blocks, const std::vector<at::Tensor>& examples)
      : blocks_(blocks), examples_(examples) {
    for (int rank = 0; rank < blocks.ranks(); ++rank) {
      counts.push_back(0);
      for (size_t i = 0; i < examples.size(); ++i) counts.back() += part_size(i, rank);
    }
  }

  // Tensor i's blocks of `rank` in a buffer that starts with the part of `first_rank`.
  at::Tensor part(const at::Tensor& buffer, size_t i, int rank, int first_rank) const {
    int64_t offset = 0;
    for (int r = first_rank; r < rank; ++r) offset += counts[r];
    for (size_t before = 0; before < i; ++before) offset += part_size(before, rank);
    std::vector<int64_t> shape = examples_[i].sizes().vec();
    shape[2] = count_of(rank);
    return buffer.narrow(0, offset, part_size(i, rank)).view(shape);
  }

  std::vector<int64_t> counts;  // elements of each rank

 private:
  int64_t count_of(int rank) const { return blocks_.blocks[rank + 1] - blocks_.blocks[rank]; }
  int64_t part_size(size_t i, int rank) const {
    int64_t size = count_of(rank);
    for (int64_t dim = 0; dim < examples_[i].dim(); ++dim) {
      if (dim != 2) size *= examples_[i].size(dim);
    }
    return size;
  }

  const OuterShards& blocks_;
  const std::vector<at::Tensor>& examples_;
};

at::Tensor with_blocks(const at::Tensor& example, int64_t blocks) {
  std::vector<int64_t> shape = example.sizes().vec();
  shape[2] = blocks;
  return at::empty(shape, example.options());
}

}  // namespace

at::Tensor block_means(const at::Tensor& x_BLHD, const std::vector<int64_t>& offsets, int threads) {
  if (!x_BLHD.is_cpu()) return device::block_means(x_BLHD, offsets);
  at::Tensor means = at::empty(
      {x_BLHD.size(0), x_BLHD.size(2), static_cast<int64_t>(offsets.size()) - 1, x_BLHD.size(3)},
      x_BLHD.options().dtype(accumulator_type(x_BLHD.scalar_type())));
  dispatch_compute_type(x_BLHD.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    kernels::pool_blocks<T>(const_head_view<T>(x_BLHD), offsets, static_cast<int>(x_BLHD.size(0)),
                            static_cast<int>(x_BLHD.size(2)), static_cast<int>(x_BLHD.size(3)),
                            static_cast<kernels::Accumulator<T>*>(means.data_ptr()), threads);
  });
  return means;
}

void add_block_mean_gradients(const at::Tensor& dmeans, const std::vector<int64_t>& offsets,
                              const at::Tensor& dx_BLHD, int threads) {
  const at::Tensor contiguous = dmeans.contiguous();
  if (!dx_BLHD.is_cpu()) return device::add_block_mean_gradients(contiguous, offsets, dx_BLHD);
  dispatch_accumulator_type(dx_BLHD.scalar_type(), [&](auto zero) {
    using A = decltype(zero);
    kernels::add_pooling_gradient<A>(
        static_cast<const A*>(contiguous.data_ptr()), offsets, static_cast<int>(dx_BLHD.size(0)),
        static_cast<int>(dx_BLHD.size(2)), static_cast<int>(dx_BLHD.size(3)), head_view<A>(dx_BLHD),
        threads);
  });
}

std::vector<at::Tensor> gather_blocks(const OuterShards& blocks, comm::Communicator& group,
                                      const std::vector<at::Tensor>& own) {
  if (blocks.ranks() == 1) return own;
  const Packing packing(blocks, own);
  int64_t total = 0;
  for (int64_t count : packing.counts) total += count;
  at::Tensor sent = at::empty({packing.counts[blocks.self]}, own[0].options());
  at::Tensor received = at::empty({total}, own[0].options());
  for (size_t i = 0; i < own.size(); ++i) {
    packing.part(sent, i, blocks.self, blocks.self).copy_(own[i]);
  }
  gather_tensors(group, sent, received, packing.counts);

  std::vector<at::Tensor> all;
  for (size_t i = 0; i < own.size(); ++i) {
    all.push_back(with_blocks(own[i], static_cast<int64_t>(blocks.block_offsets.size()) - 1));
    for (int rank = 0; rank < blocks.ranks(); ++rank) {
      const at::Tensor part = packing.part(received, i, rank, 0);
      all[i].narrow(2, blocks.blocks[rank], part.size(2)).copy_(part);
    }
  }
  return all;
}

std::vector<at::Tensor> reduce_scatter_blocks(const OuterShards& blocks, comm::Communicator& group,
                                              const std::vector<at::Tensor>& all) {
  if (blocks.ranks() == 1) return all;
  const Packing packing(blocks, all);
  int64_t total = 0;
  for (int64_t count : packing.counts) total += count;
  at::Tensor sent = at::empty({total}, all[0].options());
  for (size_t i = 0; i < all.size(); ++i) {
    for (int rank = 0; rank < blocks.ranks(); ++rank) {
      const at::Tensor part = packing.part(sent, i, rank, 0);
      part.copy_(all[i].narrow(2, blocks.blocks[rank], part.size(2)));
    }
  }
  at::Tensor received = at::empty({packing.counts[blocks.self]}, all[0].options());
  reduce_scatter_tensors(group, sent, received, packing.counts);
  std::vector<at::Tensor> own;
  for (size_t i = 0; i < all.size(); ++i) {
    own.push_back(packing.part(received, i, blocks.self, blocks.self));
  }
  return own;
}

}  // namespace sprocket::parallel

// Summaries of blocks for tensors on a CUDA device: the twins of kernels/block_pooling.h,
// gather_samples of kernels/block_samples.h and similarity_caps of kernels/level_selection.h, the
// same bits. They enqueue and return.
//
// offsets: [blocks + 1] rows of x. Means and samples are fp32.
#pragma once

#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kernels/block_samples.h"

namespace sprocket::parallel::device {

// [B, H, blocks, D]
at::Tensor block_means(const at::Tensor& x_BLHD, const std::vector<int64_t>& offsets);
// [B, H, blocks, parts * D]
at::Tensor sub_block_means(const at::Tensor& x_BLHD, const std::vector<int64_t>& offsets, int parts,
                           int capacity);
void add_block_mean_gradients(const at::Tensor& dmeans, const std::vector<int64_t>& offsets,
                              const at::Tensor& dx_BLHD);

// [B, H, blocks, samples * D]
at::Tensor gather_samples(const at::Tensor& x_BLHD, const kernels::BlockSamples& samples);

// u8 [B, H, blocks]
at::Tensor similarity_caps(const at::Tensor& k_BLHD, const std::vector<int64_t>& offsets,
                           std::span<const int> widths, std::span<const double> thresholds);

}  // namespace sprocket::parallel::device

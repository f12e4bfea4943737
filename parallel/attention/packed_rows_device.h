// Rows in messages for tensors on a CUDA device: the twins of kernels/row_runs.h. `elements` is a
// flat message buffer; packed rows count from its element `first`. They enqueue and return.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "kernels/row_run.h"

namespace sprocket::parallel::device {

void pack_rows(const at::Tensor& x_BLHD, const std::vector<kernels::RowRun>& runs,
               const at::Tensor& elements, int64_t first);

// sums (fp32) += the packed rows.
void add_packed_rows(const at::Tensor& elements, int64_t first,
                     const std::vector<kernels::RowRun>& runs, const at::Tensor& sums_BLHD);

}  // namespace sprocket::parallel::device

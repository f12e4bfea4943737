// The products of kernels/cuda/row_tile.cuh, written out.
#pragma once

#include "base/stream.h"

namespace sprocket::kernels::cuda {

// scores [m, n] = scale * a b^T of device arrays a [m, dim] and b [n, dim], in tiles of `rows`
// rows: 16, 8 or 4.
void probe_row_tile(int rows, const float* a, int m, const float* b, int n, int dim, float scale,
                    float* scores, StreamView stream);

}  // namespace sprocket::kernels::cuda

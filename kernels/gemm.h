// Dense products for linear layers on the CPU, fp32, through LIBXSMM (AVX-512 where present).
//
// LibTorch's fp32 product takes MKL's AVX2 path on AMD processors, at 41 % of the machine's peak;
// see docs/decisions/cpu_gemm.md. All matrices are row-major and contiguous, and no result aliases
// an operand. Any of m, n, k may be 0: an empty sum is 0.
//
// Every result is bitwise independent of `threads`. The calls allocate scratch space: a packed copy
// of the weight, and a few hundred KiB per thread.
#pragma once

#include <cstdint>

namespace sprocket::kernels {

// y[m, n] = sum_k x[m, k] * w[n, k] (+ bias[n] when bias is not null), one chain over ascending k.
// Fewer than kFewRows rows are summed in another order, straight from the unpacked weight;
// otherwise a row's result does not depend on m or on the other rows.
inline constexpr int64_t kFewRows = 8;
void linear_forward(const float* x, const float* w, const float* bias, float* y, int64_t m,
                    int64_t n, int64_t k, int threads);

// dx[m, k] = sum_n dy[m, n] * w[n, k], one chain over ascending n.
void linear_backward_input(const float* dy, const float* w, float* dx, int64_t m, int64_t n,
                           int64_t k, int threads);

// dw[n, k] (+)= sum_m dy[m, n] * x[m, k]; db[n] (+)= sum_m dy[m, n] when db is not null.
// The sum over m is made of sums over 256 rows each, added in ascending order; with `accumulate`
// the whole sum is then added to what is there.
void linear_backward_weight(const float* dy, const float* x, float* dw, float* db, int64_t m,
                            int64_t n, int64_t k, bool accumulate, int threads);

}  // namespace sprocket::kernels

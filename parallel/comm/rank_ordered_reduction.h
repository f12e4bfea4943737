// The arithmetic of reductions, one for all host backends: contributions are combined in the order
// of their ranks, bf16 and f16 in fp32 with one rounding at the end. So every backend, run and rank
// gets the same bits.
#pragma once

#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "parallel/comm/communicator.h"

namespace sprocket::comm {

// out[i] = sources[0][i] op sources[1][i] op …, evaluated from left to right. `out` may be one of
// the sources. Integers wrap around; kMax and kMin give NaN when any contribution is NaN.
void reduce_in_rank_order(DType dtype, ReduceOp op, std::span<const void* const> sources, void* out,
                          int64_t count);

}  // namespace sprocket::comm

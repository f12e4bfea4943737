// Element types as CUTLASS names them.
#pragma once

#include <cutlass/numeric_types.h>

#include <type_traits>

#include "kernels/cuda/segment_attention_problem.h"

namespace sprocket::kernels::cuda {

template <Element kElement>
using ElementType =
    std::conditional_t<kElement == Element::kBFloat16, cutlass::bfloat16_t, cutlass::half_t>;

}  // namespace sprocket::kernels::cuda

#include "kernels/cuda/segment_attention_sm80_backward.cuh"

namespace sprocket::kernels::cuda {
template void launch_key_gradients_sm80<Element::kBFloat16, 64>(const BackwardArguments&,
                                                                CUstream_st*);
template void launch_query_gradients_sm80<Element::kBFloat16, 64>(const BackwardArguments&,
                                                                  CUstream_st*);
}  // namespace sprocket::kernels::cuda

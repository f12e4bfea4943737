#include "kernels/cuda/segment_attention_sm90_key_gradients.cuh"
#include "kernels/cuda/segment_attention_sm90_query_gradients.cuh"

namespace sprocket::kernels::cuda {
template void launch_key_gradients_sm90<Element::kBFloat16, 64>(const BackwardArguments&,
                                                                CUstream_st*);
template void launch_query_gradients_sm90<Element::kBFloat16, 64>(const BackwardArguments&,
                                                                  CUstream_st*);
}  // namespace sprocket::kernels::cuda

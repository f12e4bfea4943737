#include "kernels/cuda/segment_attention_sm90_forward.cuh"

namespace sprocket::kernels::cuda {
template void launch_forward_sm90<Element::kFloat16, 64>(const ForwardArguments&, CUstream_st*);
}  // namespace sprocket::kernels::cuda

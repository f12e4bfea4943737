#include "kernels/cuda/segment_attention_sm80_forward.cuh"

namespace sprocket::kernels::cuda {
template void launch_forward_sm80<Element::kBFloat16, 128>(const ForwardArguments&, CUstream_st*);
}  // namespace sprocket::kernels::cuda

#include "parallel/attention/attention_method.h"

#include "base/error.h"

namespace sprocket::parallel {

at::Tensor FineStageMethod::finish(const at::Tensor& fine) { return fine.to(dtype_); }

at::Tensor FineStageMethod::finish_backward(const at::Tensor& dout, ShardGradients&) {
  return dout;
}

std::unique_ptr<AttentionMethod> make_method(const MethodContext& context,
                                             const AttentionSpec& spec) {
  switch (spec.method) {
    case MethodKind::kDense:
      return make_dense_method(context);
    case MethodKind::kVsa:
      return make_vsa_method(context, spec.vsa, spec.budget);
    case MethodKind::kBsa:
      return make_bsa_method(context, spec.bsa, spec.budget);
    case MethodKind::kPsa:
      return make_psa_method(context, spec.psa, spec.budget);
    case MethodKind::kAsa:
      return make_asa_method(context, spec.asa, spec.budget);
    case MethodKind::kSlidingTile:
      return make_sliding_tile_method(context, spec.sliding_tile);
  }
  throw InternalError("unknown attention method");
}

}  // namespace sprocket::parallel

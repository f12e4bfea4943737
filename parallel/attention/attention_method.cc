#include "parallel/attention/attention_method.h"

#include "base/error.h"

namespace sprocket::parallel {

std::vector<kernels::Share> AttentionMethod::head_density(const Selection& selection) const {
  const kernels::SegmentTable& table = *selection.table;
  std::vector<kernels::Share> shares(table.heads);
  for (int64_t bh = 0; bh < int64_t{table.batch} * table.heads; ++bh) {
    const int64_t first = bh * table.query_blocks;
    const int64_t listed = table.row_offsets[first + table.query_blocks] - table.row_offsets[first];
    shares[bh % table.heads] +=
        {static_cast<double>(listed), static_cast<double>(table.query_blocks) * table.kv_blocks};
  }
  return shares;
}

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

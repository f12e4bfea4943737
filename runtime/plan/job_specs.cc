#include "runtime/plan/job_specs.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "configs/attention_rules.h"

namespace sprocket::runtime {
namespace {

parallel::BlockOrder order_of(config::Attention::Order order) {
  switch (order) {
    case config::Attention::KD:
      return parallel::BlockOrder::kKd;
    case config::Attention::RASTER:
      return parallel::BlockOrder::kRaster;
    case config::Attention::CUBE_HILBERT:
      return parallel::BlockOrder::kCubeHilbert;
    case config::Attention::HILBERT:
      return parallel::BlockOrder::kHilbert;
  }
  throw InternalError("attention.order has no counterpart");
}

parallel::OuterStrategyKind outer_of(config::Parallel::Strategy strategy) {
  switch (strategy) {
    case config::Parallel::SELECTED:
      return parallel::OuterStrategyKind::kSelected;
    case config::Parallel::RING:
      return parallel::OuterStrategyKind::kRing;
    case config::Parallel::ALL_GATHER:
      return parallel::OuterStrategyKind::kAllGather;
  }
  throw InternalError("parallel.strategy has no counterpart");
}

}  // namespace

parallel::MeshShape mesh_shape(const config::Job& job) {
  SPROCKET_CHECK(job.parallel().outer() > 0, "parallel.outer is unresolved");
  return {job.parallel().data(), job.parallel().outer(), job.parallel().ulysses()};
}

parallel::TokenLayoutSpec token_layout_spec(const config::Attention& attention,
                                            const parallel::Grid& grid) {
  parallel::TokenLayoutSpec spec;
  spec.grid = grid;
  spec.cube = {attention.cube().t(), attention.cube().h(), attention.cube().w()};
  spec.order = order_of(attention.order());
  spec.domains = attention.domains();
  spec.block_tokens = attention.block_tokens();
  const int64_t capacity =
      spec.order == parallel::BlockOrder::kHilbert ? spec.block_tokens : spec.cube.tokens();
  spec.prefix_block_tokens =
      static_cast<int>(std::min<int64_t>(capacity, std::numeric_limits<int>::max()));
  return spec;
}

parallel::TokenLayoutSpec token_layout_spec(const config::Job& job,
                                            const config::LatentShape& shape) {
  const config::Extent& patch = job.model().patch();
  parallel::TokenLayoutSpec spec = token_layout_spec(
      job.attention(), {shape.t / patch.t(), shape.h / patch.h(), shape.w / patch.w()});
  const int32_t text = config::text_prefix(job.model());
  if (text > 0) spec.prefix = {text};
  return spec;
}

parallel::StrategySpec strategy_spec(const config::Job& job, int threads) {
  const config::Parallel& parallel = job.parallel();
  return {.outer = outer_of(parallel.strategy()),
          .keep_remote_kv = parallel.remote_kv() != config::Parallel::FETCH_AGAIN,
          .threads = threads,
          .overlap = parallel.overlap(),
          .single_pass = parallel.single_pass(),
          .wide_gradients = parallel.gradient_wire() == config::Parallel::ACCUMULATOR,
          .gather_above = parallel.gather_above(),
          .head_groups = parallel.head_groups(),
          .balance_heads = parallel.balance_heads()};
}

DType compute_dtype(const config::Job& job) {
  switch (job.compute().precision()) {
    case config::Compute::FP32:
      return DType::kF32;
    case config::Compute::BF16:
      return DType::kBF16;
    case config::Compute::FP64:
      return DType::kF64;
  }
  throw InternalError("compute.precision has no counterpart");
}

}  // namespace sprocket::runtime

#include "runtime/plan/job_specs.h"

#include "base/error.h"
#include "configs/schedule.h"

namespace sprocket::runtime {
namespace {

parallel::MethodKind method_of(config::Attention::Method method) {
  switch (method) {
    case config::Attention::DENSE:
      return parallel::MethodKind::kDense;
    case config::Attention::VSA:
      return parallel::MethodKind::kVsa;
  }
  throw InternalError("attention.method has no counterpart");
}

parallel::CoarseBranch coarse_of(config::Attention::Coarse coarse) {
  switch (coarse) {
    case config::Attention::GATED:
      return parallel::CoarseBranch::kGated;
    case config::Attention::ADD:
      return parallel::CoarseBranch::kAdd;
    case config::Attention::NONE:
      return parallel::CoarseBranch::kNone;
  }
  throw InternalError("attention.coarse has no counterpart");
}

parallel::BlockOrder order_of(config::Attention::Order order) {
  switch (order) {
    case config::Attention::KD:
      return parallel::BlockOrder::kKd;
    case config::Attention::RASTER:
      return parallel::BlockOrder::kRaster;
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

parallel::TokenLayoutSpec token_layout_spec(const config::Job& job,
                                            const config::LatentShape& shape) {
  const config::Extent& patch = job.model().patch();
  const config::Cube& cube = job.attention().cube();
  parallel::TokenLayoutSpec spec;
  spec.grid = {shape.t / patch.t(), shape.h / patch.h(), shape.w / patch.w()};
  spec.cube = {cube.t(), cube.h(), cube.w()};
  spec.order = order_of(job.attention().order());
  spec.domains = job.attention().domains();
  return spec;
}

parallel::AttentionSpec attention_spec(const config::Job& job, int64_t step) {
  parallel::AttentionSpec spec;
  spec.method = method_of(job.attention().method());
  spec.coarse = coarse_of(job.attention().coarse());
  spec.sparsity = config::schedule_value(job.attention().sparsity(), step);
  spec.max_coverage = config::schedule_value(job.attention().max_coverage(), step);
  spec.budget_head_group = job.attention().budget_head_group();
  return spec;
}

parallel::StrategySpec strategy_spec(const config::Job& job, int threads) {
  return {outer_of(job.parallel().strategy()), job.parallel().keep_remote_kv(), threads};
}

DType compute_dtype(const config::Job& job) {
  switch (job.compute().precision()) {
    case config::Compute::FP32:
      return DType::kF32;
    case config::Compute::BF16:
      return DType::kBF16;
  }
  throw InternalError("compute.precision has no counterpart");
}

}  // namespace sprocket::runtime

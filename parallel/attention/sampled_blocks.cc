#include "parallel/attention/sampled_blocks.h"

#include <ATen/ops/empty.h>

#include "parallel/attention/block_summaries.h"
#include "parallel/attention/block_summaries_device.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

at::Tensor gather_own(const at::Tensor& x_BLHD, const kernels::BlockSamples& samples, int threads) {
  if (!x_BLHD.is_cpu()) return device::gather_samples(x_BLHD, samples);
  at::Tensor out =
      at::empty({x_BLHD.size(0), x_BLHD.size(2), samples.blocks, samples.samples * x_BLHD.size(3)},
                x_BLHD.options().dtype(accumulator_type(x_BLHD.scalar_type())));
  dispatch_compute_type(x_BLHD.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    kernels::gather_samples<T>(const_head_view<T>(x_BLHD), samples,
                               static_cast<int>(x_BLHD.size(0)), static_cast<int>(x_BLHD.size(3)),
                               static_cast<kernels::Accumulator<T>*>(out.data_ptr()), threads);
  });
  return out;
}

}  // namespace

SampledBlocks sample_and_gather(const MethodContext& context, const ShardTensors& tensors,
                                const SamplingSpec& spec) {
  const kernels::SampleKey key{spec.seed, static_cast<uint64_t>(spec.step), context.layer};
  const auto& offsets = context.layout.block_offsets;
  SampledBlocks sampled;
  at::Tensor k_own;
  {
    Timeline::Scope scope(context.timeline(), Activity::kCompute, "attention.sample");
    sampled.q_samples = kernels::sample_blocks(offsets, context.first_block(), context.own_blocks(),
                                               context.heads, spec.per_block, key);
    sampled.k_samples = kernels::sample_blocks(offsets, 0, context.layout.blocks(), context.heads,
                                               spec.per_block, key);
    sampled.q = gather_own(tensors.q, sampled.q_samples, context.threads);
    k_own = gather_own(tensors.k, sampled.q_samples, context.threads);
  }
  sampled.k = gather_blocks(context.blocks, context.group.tensors, {k_own})[0];
  return sampled;
}

kernels::GivenScores<float> given_scores(const MethodContext& context, const at::Tensor& scores) {
  kernels::GivenScores<float> given;
  given.batch = static_cast<int>(scores.size(0));
  given.heads = static_cast<int>(scores.size(1));
  given.query_blocks = static_cast<int>(scores.size(2));
  given.first_query_block = context.first_block();
  given.prefix_blocks = context.layout.prefix_blocks();
  given.kv_blocks = given.prefix_blocks + static_cast<int>(scores.size(3));
  given.threads = context.threads;
  given.scores = {scores.const_data_ptr<float>(), static_cast<size_t>(scores.numel())};
  return given;
}

}  // namespace sprocket::parallel

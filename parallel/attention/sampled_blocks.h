// Sampled tokens of blocks, which PSA and ASA score blocks by, on LibTorch tensors.
#pragma once

#include "kernels/sampled_scores.h"
#include "parallel/attention/attention_method.h"

namespace sprocket::parallel {

// Samples of the own query blocks and of all key blocks.
struct SampledBlocks {
  at::Tensor q, k;  // [B, H, blocks, m * D], accumulator type
  kernels::BlockSamples q_samples, k_samples;

  template <class A>
  kernels::SampledScoreProblem<A> problem(const MethodContext& context,
                                          kernels::SampledScore score) const {
    kernels::SampledScoreProblem<A> problem;
    problem.batch = static_cast<int>(q.size(0));
    problem.heads = static_cast<int>(q.size(1));
    problem.query_blocks = q_samples.blocks;
    problem.kv_blocks = k_samples.blocks;
    problem.samples = q_samples.samples;
    problem.head_dim = static_cast<int>(q.size(3)) / q_samples.samples;
    problem.scale = context.scale;
    problem.score = score;
    problem.q = static_cast<const A*>(q.data_ptr());
    problem.k = static_cast<const A*>(k.data_ptr());
    problem.q_counts = q_samples.counts;
    problem.k_counts = k_samples.counts;
    problem.first_query_block = context.first_block();
    problem.prefix_blocks = context.layout.prefix_blocks();
    problem.threads = context.threads;
    return problem;
  }
};

// Collective over the outer group: one all-gather of the samples of k.
SampledBlocks sample_and_gather(const MethodContext& context, const ShardTensors& tensors,
                                const SamplingSpec& spec);

// Scores that a device made, [B, H, own blocks, video blocks] in host memory, for the processor's
// rules. Refers to the tensor.
kernels::GivenScores<float> given_scores(const MethodContext& context, const at::Tensor& scores);

}  // namespace sprocket::parallel

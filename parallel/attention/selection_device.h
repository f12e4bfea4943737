// Selections for tensors on a CUDA device, from what the blocks of the whole sequence have been
// summed up to: the twins of what the methods call on the processor, and the coarse attention that
// shares VSA's scores. The same means or scores give the processor's table (kernels/cuda).
//
// The host has every table, so a selection waits for the stream; everything else enqueues and
// returns.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/level_rule.h"
#include "kernels/mass_rule.h"
#include "kernels/prefix_rule.h"
#include "kernels/pyramid.h"
#include "kernels/sampled_score.h"
#include "kernels/segment_table.h"
#include "kernels/threshold_rule.h"
#include "parallel/attention/sampled_blocks.h"

namespace sprocket::parallel::device {

// Block means: q of the own blocks, k and v of all; fp32 [B, H, blocks, D].
struct CoarseTensors {
  at::Tensor q, k, v;
  double scale = 1;
  int first_query_block = 0;
  int prefix_blocks = 0;
  kernels::PrefixRule prefix_rule = kernels::PrefixRule::kExempt;
};

// The coarse output goes to `out` unless that is undefined.
kernels::SegmentTable select_and_attend(const CoarseTensors& coarse, int k, const at::Tensor& out);
void coarse_attend(const CoarseTensors& coarse, const at::Tensor& out);
// Overwrites dq, dk and dv.
void coarse_attend_backward(const CoarseTensors& coarse, const at::Tensor& dout,
                            const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv);

// v and prefix_rule are not looked at.
kernels::SegmentTable select_by_threshold(const CoarseTensors& coarse,
                                          const kernels::ThresholdBounds& bounds);

// fp32 [B, H, own blocks, video blocks]; rows of prefix query blocks hold anything.
struct ScoreTensors {
  at::Tensor scores;
  int first_query_block = 0;
  int prefix_blocks = 0;
};
ScoreTensors sampled_scores(const MethodContext& context, const SampledBlocks& sampled,
                            kernels::SampledScore score);
kernels::SegmentTable select_by_mass(const ScoreTensors& scores, const kernels::MassBounds& bounds);
// caps: of all blocks, or undefined.
kernels::SegmentTable select_levels(const ScoreTensors& scores, const kernels::LevelBounds& bounds,
                                    const kernels::PyramidLayout& pyramid, const at::Tensor& caps);

}  // namespace sprocket::parallel::device

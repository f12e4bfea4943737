// From the job description to what the layers below take.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "configs/job.pb.h"
#include "configs/validate.h"
#include "parallel/mesh.h"
#include "parallel/sequence_attention.h"
#include "parallel/token_layout.h"

namespace sprocket::runtime {

// `job` is resolved and valid, and parallel.outer > 0 (load_job with a world).
parallel::MeshShape mesh_shape(const config::Job& job);

// Tokens of a latent video under the model's patch, behind those of the text where the model has
// both in one sequence. The shape has passed check_latent_shape.
parallel::TokenLayoutSpec token_layout_spec(const config::Job& job,
                                            const config::LatentShape& shape);

// The same for a grid of tokens, without prefix segments; blocks of those would have as many rows
// as the video's at most.
parallel::TokenLayoutSpec token_layout_spec(const config::Attention& attention,
                                            const parallel::Grid& grid);

// The attention at a step: the schedules are evaluated.
parallel::AttentionSpec attention_spec(const config::Attention& attention, int64_t step);

// The attention in the sampler: that of a training step, but dense in evaluation `index` of `count`
// as long as PSA's dense_sampling says so: in the first floor(dense_sampling * count).
parallel::AttentionSpec sampling_attention_spec(const config::Attention& attention, int64_t step,
                                                int index, int count);

// `threads` is the rank's resolved number of threads. parallel.remote_kv: AUTO keeps; a job that
// runs has decided before (runtime/jobs/remote_kv_agreement.h).
parallel::StrategySpec strategy_spec(const config::Job& job, int threads);

// Of activations in the forward.
DType compute_dtype(const config::Job& job);

}  // namespace sprocket::runtime

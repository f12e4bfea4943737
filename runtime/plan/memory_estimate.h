// How much memory a rank of a training job needs, before anything is allocated.
//
// Weights, gradients and optimizer state are exact. Activations are counted tensor by tensor from
// what the model's autograd functions save. The sum was within 3 % of the peak of resident memory
// of small Wan models on one and two ranks, dense and VSA, fp32 and bf16, kept and recomputed
// activations, with an allocator that gives back what is freed (docs/plan.md). glibc's default
// keeps up to a few hundred MiB of freed memory beyond it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/job.pb.h"
#include "configs/validate.h"

namespace sprocket::runtime {

// Elements of all parameters of the model that the job describes, gates of VSA included.
int64_t parameter_count(const config::Job& job);

// Of what is trained: all parameters, or adapters and gates; of adapters as if they were of the
// layers that have one by default.
int64_t trained_count(const config::Job& job);

// What one rank holds of a sample.
struct RankShare {
  int64_t tokens = 0;  // own tokens of a sample's sequence
  // Rows of K, and as many of V, that it receives from other outer ranks and may keep for the
  // backward: of tokens, and with PSA of their means.
  int64_t remote_rows = 0;
};

// The most that a sequence rank holds of a video of `shape`, at any step of the job: with SELECTED
// and a budget, the K and V that the budget lets cross. `job` is resolved for its size.
RankShare rank_share(const config::Job& job, const config::LatentShape& shape, int sequence_rank);

struct MemoryRow {
  std::string what;
  int64_t bytes = 0;
};

struct MemoryEstimate {
  std::vector<MemoryRow> rows;
  int64_t total() const;
};

// Peak of a training step: the end of the forward. K and V of other ranks are kept unless
// parallel.remote_kv is FETCH_AGAIN or the strategy is RING, which passes them on.
MemoryEstimate estimate_training_memory(const config::Job& job, const RankShare& share);

// Peak of a step of distillation: weights of three networks, the frozen ones once for all that
// start from the same, and the pass of student or fake score that needs more.
MemoryEstimate estimate_distillation_memory(const config::Job& job,
                                            const config::LatentShape& shape, int sequence_rank);

}  // namespace sprocket::runtime

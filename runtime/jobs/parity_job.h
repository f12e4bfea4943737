// `sprocket check-parity`: a training job's forward and backward on its mesh against one rank.
#pragma once

#include <limits>
#include <memory>
#include <string>

#include <c10/core/Device.h>

#include "configs/job.pb.h"
#include "configs/validate.h"
#include "parallel/comm/communicator.h"
#include "runtime/parity/parity_comparison.h"

namespace sprocket::runtime {

struct ParityOptions {
  // The job's file, for the report.
  std::string name;
  // Where the full report goes, as JSON; empty: nowhere.
  std::string report;
  // At which the attention's schedules are evaluated.
  int64_t attention_step = 0;
  // Threads of this rank's kernels; >= 1.
  int threads = 1;
  // Of the ranks' tensors, as in TrainOptions; what one rank is compared with stays on the
  // processor.
  at::Device device = at::kCPU;
  // Bytes that this rank may use, as in TrainOptions.
  int64_t memory = std::numeric_limits<int64_t>::max();
};

// What the ranks compute, in compute.precision. Collective over `world`; `job` is resolved for its
// size. Throws ConfigError, InputError, CommError.
ParityResults compute_on_ranks(const config::Job& job, std::unique_ptr<comm::Communicator> world,
                               const ParityOptions& options);

struct ParityOutcome {
  ParityComparison comparison;
  std::string text;  // for people
};

// Computes in this process alone what one rank computes of the same samples, compares it with what
// rank 0 got of compute_on_ranks, and writes the report. Not collective. Throws ConfigError,
// InputError, OutputError.
ParityOutcome compare_with_one_rank(const config::Job& job, const ParityResults& found,
                                    const ParityOptions& options);

// About what both need of rank 0, in bytes.
int64_t parity_memory(const config::Job& job, const config::LatentShape& shape);

}  // namespace sprocket::runtime

// `sprocket check-parity`: a training job's forward and backward on its mesh against one rank.
#pragma once

#include <memory>
#include <optional>
#include <string>

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
};

// What one rank computes.
struct ParityReference {
  ParityResults exact;                   // in fp64
  std::optional<ParityResults> rounded;  // in the job's precision, when that is another one
};

// Not collective: this process alone, in a world of its own. `job` is resolved for any number of
// ranks; its mesh does not matter but for the data degree, whose replicas are computed one after
// the other. Throws ConfigError, InputError.
ParityReference compute_parity_reference(const config::Job& job, const ParityOptions& options);

// About what compute_parity_reference needs on top of the process, in bytes.
int64_t parity_reference_memory(const config::Job& job, const config::LatentShape& shape);

struct ParityOutcome {
  bool passed = false;          // on every rank
  std::string text;             // on rank 0
  ParityComparison comparison;  // on rank 0
};

// Collective over `world`; `job` is resolved for its size, compute.precision says in which
// precision the mesh computes. `reference` is read on rank 0. Throws ConfigError, InputError,
// OutputError, CommError.
ParityOutcome check_parity(const config::Job& job, std::unique_ptr<comm::Communicator> world,
                           const ParityReference& reference, const ParityOptions& options);

}  // namespace sprocket::runtime

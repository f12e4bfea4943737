// Whether K and V of other ranks stay until the backward, by the memory at hand
// (parallel.remote_kv).
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "configs/job.pb.h"
#include "configs/validate.h"

namespace sprocket::runtime {

// Of one rank, in bytes.
struct RemoteKvRoom {
  int64_t kept = 0;     // the peak of a step when K and V of other ranks are kept
  int64_t fetched = 0;  // the same when they are fetched again
  int64_t at_hand = 0;  // what the rank may use of its machine's memory
  bool keeps() const;   // they fit, or fetching them again would save nothing
  int64_t left() const { return at_hand - kept; }
};

// By the estimate of `sprocket train --dry-run`, for the sequence rank's share of a video of
// `shape`. `job` is resolved for its size.
RemoteKvRoom training_room(const config::Job& job, const config::LatentShape& shape,
                           int sequence_rank, int64_t at_hand);

struct RemoteKvChoice {
  // KEEP or FETCH_AGAIN.
  config::Parallel::RemoteKv value = config::Parallel::KEEP;
  // Whether memory decided; false: the job says it, or has no K and V of other ranks to keep.
  bool by_memory = false;
  int rank = 0;       // that has least left when they are kept
  RemoteKvRoom room;  // its figures

  // "K and V of other ranks are kept for the backward: rank 1 has least room, …".
  std::string text() const;
};

// Whether the job's strategy has K and V of other ranks to keep. `job` is resolved for its size.
bool receives_remote_kv(const config::Job& job);

// Whether memory has to decide: AUTO, of such a job.
bool remote_kv_is_open(const config::Job& job);

// One rank that cannot keep them lets all fetch them again. `ranks` are those of all ranks, so that
// everybody chooses the same.
RemoteKvChoice choose_remote_kv(std::span<const RemoteKvRoom> ranks);

}  // namespace sprocket::runtime

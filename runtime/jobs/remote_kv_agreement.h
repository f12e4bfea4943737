// The ranks' common answer to parallel.remote_kv: AUTO, once at the start of a job.
#pragma once

#include <cstdint>

#include "configs/job.pb.h"
#include "parallel/comm/communicator.h"
#include "runtime/data/index.h"
#include "runtime/plan/remote_kv.h"

namespace sprocket::runtime {

// What a rank may use of its machine.
struct RankResources {
  int threads = 1;
  int64_t memory = 0;  // bytes
};

// Replaces AUTO in `job` by what all ranks have room for in training on videos of `shape`, the
// largest there is; rank 0 logs why. Collective over `world` when remote_kv_is_open(job).
RemoteKvChoice agree_on_remote_kv(config::Job& job, const data::LatentShape& shape,
                                  const RankResources& own, comm::Communicator& world);

}  // namespace sprocket::runtime

// The ranks' common answer to parallel.remote_kv: AUTO, once at the start of a job.
#pragma once

#include <cstdint>

#include "configs/job.pb.h"
#include "parallel/comm/communicator.h"
#include "runtime/data/index.h"
#include "runtime/plan/remote_kv.h"

namespace sprocket::runtime {

// Replaces AUTO in `job` by what all ranks have room for in training on videos of `shape`, the
// largest there is; rank 0 logs why. `at_hand`: bytes that this rank may use. Collective over
// `world` when remote_kv_is_open(job).
RemoteKvChoice agree_on_remote_kv(config::Job& job, const data::LatentShape& shape, int64_t at_hand,
                                  comm::Communicator& world);

}  // namespace sprocket::runtime

// What a window's files say of the job that they are of.
#pragma once

#include <set>
#include <string>

#include "configs/job.pb.h"
#include "configs/validate.h"
#include "models/parameter_store.h"
#include "parallel/mesh.h"
#include "runtime/data/index.h"
#include "runtime/profile/events.pb.h"

namespace sprocket::runtime {

// Equal for jobs whose profiles can be compared: of everything but folders, seeds and lengths of
// the run. 16 hexadecimal digits.
std::string job_identity(const config::Job& job);

config::LatentShape latent_extents(const data::LatentShape& shape);

struct HeaderFacts {
  std::string kind;  // "train", "sample"
  int threads = 1;
  int64_t first_step = 0, asked_steps = 0;
};

// All but the groups, for this rank. `job` is resolved for its size; `shape`: of its largest
// videos.
profile::events::Header job_header(const config::Job& job, const config::LatentShape& shape,
                                   const parallel::Mesh& mesh, const HeaderFacts& facts);

// The bytes that a rank's memory holds and has held. `stores`: of all networks, each counted once;
// `moments_bytes`: of the optimizers.
profile::events::End memory_use(const std::set<const models::ParameterStore*>& stores,
                                const at::Device& device, int64_t moments_bytes);

}  // namespace sprocket::runtime

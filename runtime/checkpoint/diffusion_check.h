// Whether a model goes on in the diffusion that it was trained in.
#pragma once

#include <string>

#include "configs/job.pb.h"

namespace sprocket::runtime {

// Logs a warning for every number in which the diffusion of a checkpoint's job differs from that of
// a job with a model of the same family: flow.shift, or all of ddpm. `whose` job it is: "the job",
// "the teacher".
void warn_of_other_diffusion(const std::string& path, const config::Job& checkpoint,
                             const config::Job& job, const std::string& whose);

}  // namespace sprocket::runtime

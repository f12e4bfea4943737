// Whether a checkpoint's tensors fit a job's model.
#pragma once

#include <string>
#include <vector>

#include "configs/job.pb.h"

namespace sprocket::runtime {

// "model.dim: checkpoint 64, job 128", one for each field that shapes the network and differs;
// model.weights does not. Both jobs are resolved.
std::vector<std::string> architecture_differences(const config::Job& checkpoint,
                                                  const config::Job& job);

// Throws InputError listing the differences, if there are any.
void check_architecture(const std::string& checkpoint_path, const config::Job& checkpoint,
                        const config::Job& job);

}  // namespace sprocket::runtime

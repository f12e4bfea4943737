// Whether a checkpoint's tensors fit a job's model, and its blocks the job's attention.
#pragma once

#include <string>
#include <vector>

#include "configs/job.pb.h"

namespace sprocket::runtime {

// "model.dim: checkpoint 64, job 128", one for each field of `model` that differs but
// model.weights. Both jobs are resolved.
std::vector<std::string> model_differences(const config::Job& checkpoint, const config::Job& job);

// The same for everything that shapes the network: gates of its attention, and adapters, too.
std::vector<std::string> architecture_differences(const config::Job& checkpoint,
                                                  const config::Job& job);

// "attention.order: checkpoint KD, job RASTER", one for each field that cuts the sequence into
// blocks and domains and differs: what was trained on other blocks computes something else. None
// where a dense checkpoint goes on with a sparse method, which has a layout for the first time.
std::vector<std::string> layout_differences(const config::Job& checkpoint, const config::Job& job);

// Throws InputError listing the differences of both kinds, if there are any.
void check_architecture(const std::string& checkpoint_path, const config::Job& checkpoint,
                        const config::Job& job);

}  // namespace sprocket::runtime

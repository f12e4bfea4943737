// Whether a job can be trained on a data set.
#pragma once

#include "configs/job.pb.h"
#include "runtime/data/latent_dataset.h"

namespace sprocket::runtime {

// Looks at everything about the data set that the job cannot run on, before any memory is spent.
// Throws ConfigError for shapes that do not fit and InputError for text that does not; warns of a
// data set made for another flow.shift.
void check_data(const config::Job& job, const data::LatentDataset& data);

}  // namespace sprocket::runtime

// Whether a job can be trained on a data set or a prompt set.
#pragma once

#include "configs/job.pb.h"
#include "runtime/data/latent_dataset.h"
#include "runtime/data/prompt_set.h"

namespace sprocket::runtime {

// Looks at everything about the data set that the job cannot run on, before any memory is spent.
// Throws ConfigError for shapes that do not fit and InputError for text that does not; warns of a
// data set made for another flow.shift.
void check_data(const config::Job& job, const data::LatentDataset& data);

// The same of a prompt set, for the videos that its prompts are to become.
void check_prompts(const config::Job& job, const data::PromptSet& prompts);

}  // namespace sprocket::runtime

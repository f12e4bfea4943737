// Which videos a job samples, and what becomes of their latents: mp4, contact sheet, PSNR.
#pragma once

#include <string>
#include <vector>

#include "runtime/checkpoint/latent_description.h"
#include "runtime/data/latent_dataset.h"
#include "runtime/data/prompt_set.h"
#include "runtime/jobs/sample_job.h"
#include "runtime/sample/sample_progress.h"
#include "runtime/sample/sample_task.h"
#include "runtime/train/network.h"

namespace sprocket::runtime {

// sampling.prompt, or else the first sampling.count of the captions of `data` or of `prompts`. Both
// may be null: `data` when the text embedder needs no data, and both when prompts are given. A
// prompt that is in the prompt set or a caption of the data set takes its embedding, and of the
// data set its shape. Throws ConfigError when there is nothing to sample; InputError for a prompt
// whose embedding was to be precomputed and is not there.
std::vector<SampleTask> plan_samples(const config::Sampling& sampling,
                                     const LatentDescription& latent, data::LatentDataset* data,
                                     data::PromptSet* prompts = nullptr);

// Makes all videos of `tasks` with the network and writes step_<step>_<number>.{mp4,png} into
// `folder`; replicas of the mesh share the tasks. `step`: optimizer steps done. `animate`: also as
// animated PNGs (SampleFiles::animation), which all ranks must want or none. Collective over the
// world. Complete on world rank 0, empty on the others.
std::vector<SampleFiles> make_samples(Network& network, const config::Sampling& sampling,
                                      const LatentDescription& latent,
                                      const std::vector<SampleTask>& tasks,
                                      data::LatentDataset* data, int64_t step,
                                      const std::string& folder, bool animate,
                                      const SampleWatch& watch);

}  // namespace sprocket::runtime

// A model and a data set so small that a training step takes milliseconds.
#pragma once

#include <string>
#include <vector>

#include "configs/load.h"
#include "runtime/jobs/train_job.h"

namespace sprocket::testing {

// Four closed-form clips of [4, 3, 8, 10] latents (60 tokens) with captions "clip 0" to "clip 3",
// hashed text of 4 x 8. `scale` multiplies the values.
void write_tiny_data(const std::string& folder, float scale = 1);

// Dim 48, 4 heads, 2 layers, cubes of 2 x 2 x 2, 20 steps, on `ranks` ranks; reads root/data
// (written if absent) and writes root/run. `overrides` are texts for --set.
config::Job tiny_job(const std::string& root, int ranks, std::vector<std::string> overrides = {},
                     config::Purpose purpose = config::Purpose::kTrain);

// Makes the model of such a job one of CogVideoX's, in the form of the 5B: heads of 16, 13 tokens
// of text in two blocks before the video.
inline constexpr char kTinyCogVideoX[] =
    "model { family: COGVIDEOX dim: 64 text_tokens: 13 epsilon: 1e-5 cogvideox { time_dim: 24 "
    "positions: SCALED_ROPE base_height: 4 base_width: 6 } }";

// run_training on thread ranks; the result of rank 0. All ranks' losses must be equal.
runtime::TrainResult train(const config::Job& job, runtime::TrainOptions options = {});

}  // namespace sprocket::testing

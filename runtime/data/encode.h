// `sprocket data encode`: video files to a data set of latents.
#pragma once

#include <functional>

#include "runtime/data/encode_plan.h"

namespace sprocket::data {

struct EncodeProgress {
  int64_t videos_done = 0;
  int64_t videos = 0;
  int64_t clips = 0;    // written so far
  std::string current;  // video being read; empty at the end
};

struct EncodeResult {
  Index index;
  int64_t videos = 0;
  int64_t dropped_frames = 0;  // at the ends of videos, too few for another clip
};

// Decodes, crops, scales, cuts into clips, encodes and writes. The output appears complete or not
// at all. `progress` (may be empty) is called before each video, after each clip, and at the end.
// Throws ConfigError and InputError as plan_encoding; InputError for a video that is missing,
// damaged, truncated, or too short for one clip, and for a bad embedding file; OutputError for an
// output folder that already holds something and for failing writes.
EncodeResult encode_dataset(const EncodeOptions& options,
                            const std::function<void(const EncodeProgress&)>& progress = {});

}  // namespace sprocket::data
